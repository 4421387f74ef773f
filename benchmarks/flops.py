"""Parameters, floating-point operations and memory of the networks: python -m benchmarks.flops [WORKLOAD ...]"""

import argparse
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.cases import WORKLOADS, Workload
from benchmarks.measure import peak_memory
from diffusion.samplers import DEFAULT_STEPS
from models.two_stage import TwoStageConfig

NUM_SAMPLES = 16
CPU = torch.device("cpu")

_ENCODER = {"patch_size": 2, "channel_mult": (1, 2, 2, 4), "attention_resolutions": (16,)}
_DENOISER = {"patch_size": 4, "channel_mult": (1, 2), "attention_resolutions": (8,)}
_STAGE = {"num_res_blocks": 1, "scale_shift_norm": True}
_TWO_STAGES = TwoStageConfig(num_classes=2, feature_channels=16, encoder=_STAGE | _ENCODER, denoiser=_STAGE | _DENOISER)

NETWORKS = WORKLOADS | {"lidc-two-stages": Workload(_TWO_STAGES, 128, 128, batch_size=4, num_samples=100)}
"""The networks of the benchmarks, and one that has no baseline to compare with."""


class Cost(NamedTuple):
    """What one image costs; a multiplication and an addition are two operations.

    `call` is a call of the network for one label map, `training` one image in a training step, and `sampling` 16
    samples of an image with the default number of steps. An encoder runs once per image. Memory (None: not known) is
    the peak of a training step of one image, above the weights.
    """

    parameters: int
    call: int
    training: int
    sampling: int
    memory: int | None


def main(argv: Sequence[str] | None = None) -> None:
    """Print the table as Markdown."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.flops", description="Cost of the networks")
    parser.add_argument("workloads", nargs="*", metavar="WORKLOAD", help=f"of {', '.join(NETWORKS)}; all by default")
    names = parser.parse_args(argv).workloads or list(NETWORKS)
    if unknown := [name for name in names if name not in NETWORKS]:
        parser.error(f"no workload {unknown[0]}; choose from: {', '.join(NETWORKS)}")
    print("| network | image | parameters | GFLOP per call | per training image | per 16 samples | training memory |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for name in names:
        workload, cost = NETWORKS[name], cost_of(NETWORKS[name])
        giga = " | ".join(_giga(value) for value in (cost.call, cost.training, cost.sampling))
        memory = "-" if cost.memory is None else f"{cost.memory / 2**20:.0f} MiB"
        size = f"{workload.height} x {workload.width}"
        print(f"| {name} | {size} | {cost.parameters / 1e6:.2f} M | {giga} | {memory} |", flush=True)


def cost_of(workload: Workload) -> Cost:
    """Count by running the model once on one image, in float32 on the CPU."""
    model = workload.model(CPU)
    images, labels = workload.images(CPU)[:1], workload.labels(CPU)[:1]
    keys, t = torch.zeros(1, dtype=torch.int64), torch.ones(1, dtype=torch.int64)
    with torch.no_grad():
        features = model.features(images)
        encoding = operations(lambda: model.features(images))
        call = operations(lambda: model(labels, t, images, features))

    def train() -> None:
        model.loss(images, labels, keys).sum().backward()

    parameters = sum(parameter.numel() for parameter in model.network.parameters())
    sampling = encoding + NUM_SAMPLES * DEFAULT_STEPS * call
    return Cost(parameters, call, operations(train), sampling, peak_memory(train, CPU))


def operations(run: Callable[[], object]) -> int:
    """Floating-point operations of the convolutions and matrix products in a call."""
    # the counter does not know the CPU's fused attention, but the matrix products of the explicit one
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        run()
    return int(counter.get_total_flops())


def _giga(value: int) -> str:
    return f"{value / 1e9:,.0f}" if value >= 1e11 else f"{value / 1e9:.3g}"


if __name__ == "__main__":
    main()
