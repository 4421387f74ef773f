"""The benchmark cases: each returns the baseline and the library's implementation of the same computation."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, default_collate

from benchmarks import baseline
from benchmarks.measure import Implementation
from benchmarks.workloads import SyntheticDataset, Workload
from datasets.cache import cached
from datasets.loading import training_batches
from diffusion import SamplingConfig
from metrics import PairwiseIoU, ged_from, hm_iou_from
from models import CCDM, UNet
from training.ema import ExponentialMovingAverage
from training.nonfinite import NonFiniteGuard

_LEARNING_RATE, _DECAY, _ANNOTATORS, _EPOCH, _BATCH, _STEPS = 1e-4, 0.9999, 4, 64, 16, 10

Case = Callable[[Workload, torch.device], tuple[Implementation, Implementation]]


def loss(workload: Workload, device: torch.device) -> tuple[Implementation, Implementation]:
    """The loss and its gradient with respect to the logits."""
    model = workload.model(device)
    process, (_, base) = model.process, _baseline_of(model)
    x_0, x_t = (workload.labels(device, seed) for seed in (0, 1))
    hot_0, hot_t = (baseline.one_hot(x, process.num_classes) for x in (x_0, x_t))
    t = torch.arange(2, 2 + len(x_0), device=device)
    logits = torch.randn(hot_0.shape, device=device).requires_grad_()
    return (
        lambda: torch.autograd.grad(base.loss(logits, hot_t, hot_0, t).sum(), logits),
        lambda: torch.autograd.grad(process.kl(logits, x_t, x_0, t).sum(), logits),
    )


def training_step(workload: Workload, device: torch.device) -> tuple[Implementation, Implementation]:
    """Noise, loss, gradients, Adam and EMA."""
    model, images, labels = workload.model(device).train(), workload.images(device), workload.labels(device)
    training = baseline.BaselineTraining(*_baseline_of(model), _LEARNING_RATE, _DECAY)
    hot, keys = baseline.one_hot(labels, workload.num_classes), torch.arange(len(labels), device=device)
    optimizer = torch.optim.Adam(model.parameters(), lr=_LEARNING_RATE, fused=True)
    guard, average = NonFiniteGuard(device), ExponentialMovingAverage(model, _DECAY)

    def optimised() -> None:
        optimizer.zero_grad()
        total = model.loss(images, labels, keys).sum() / len(labels)
        total.backward()
        guard.inspect(optimizer, total.detach(), [p.grad for p in model.parameters() if p.grad is not None], 1)
        optimizer.step()
        average.update(model, skip=guard.found_inf)

    return lambda: training.step(images, hot), optimised


def sampling(workload: Workload, device: torch.device) -> tuple[Implementation, Implementation]:
    """One label map per image in 10 steps."""
    model, images = workload.model(device), workload.images(device)
    network, process = _baseline_of(model)
    return (
        lambda: baseline.sample(network, process, images, _STEPS),
        lambda: model.sample(images, 1, SamplingConfig(steps=_STEPS)),
    )


def ged_hm_iou(workload: Workload, device: torch.device) -> tuple[Implementation, Implementation]:
    """GED and HM-IoU of one image with 4 annotators."""
    counts, num_classes = (_ANNOTATORS, workload.num_samples), workload.num_classes
    labels, samples = (workload.annotations(number, device, seed) for seed, number in enumerate(counts))
    long_labels, long_samples = labels.long(), samples.long()

    def optimised() -> tuple[Tensor, Tensor]:
        pairs = PairwiseIoU.from_labels(labels, samples, num_classes)
        return ged_from(pairs).ged, hm_iou_from(pairs)

    return lambda: baseline.ged_and_hm_iou(long_labels, long_samples, num_classes), optimised


def loader(workload: Workload, device: torch.device) -> tuple[Implementation, Implementation]:
    """One epoch of 64 images in memory, without worker processes, in batches of 16 on the device."""
    dataset: Any = SyntheticDataset(workload, _EPOCH)
    kept = cached(dataset, "memory", device, workers=0)

    def collate(items: list[dict[str, Any]]) -> list[Tensor]:
        one_hot = (baseline.one_hot(item["labels"], workload.num_classes)[0] for item in items)
        return default_collate([(item["image"], labels) for item, labels in zip(items, one_hot, strict=True)])

    def base() -> list[Tensor]:
        batches = DataLoader(dataset, _BATCH, shuffle=True, collate_fn=collate)
        return [part.to(device) for batch in batches for part in batch]

    def optimised() -> list[Tensor]:
        batches = training_batches(kept, [], _BATCH, 0, _EPOCH // _BATCH, seed=0, workers=0)
        return [part.to(device) for batch in batches for part in (batch.images, batch.labels)]

    return base, optimised


CASES: dict[str, Case] = {
    "loss": loss,
    "training-step": training_step,
    "sampling": sampling,
    "ged-hm-iou": ged_hm_iou,
    "loader": loader,
}


def _baseline_of(model: CCDM) -> tuple[baseline.BaselineNetwork, baseline.BaselineProcess]:
    assert isinstance(model.network, UNet)
    process = baseline.BaselineProcess(model.process.alpha_bar, model.process.num_classes)
    return baseline.BaselineNetwork(model.network, model.encoder), process
