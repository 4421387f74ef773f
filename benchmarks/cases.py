"""The benchmark cases: each returns the baseline and the library's implementation of the same computation."""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, default_collate

from benchmarks import baseline
from benchmarks.measure import Implementation
from datasets.cache import cached
from datasets.loading import training_batches
from diffusion import SamplingConfig
from diffusion.uniform import get_process
from metrics import PairwiseOverlap, ged_from, hm_iou_from
from models import CCDM, DinoEncoder, EncoderConfig, FeatureCondition, FrozenEncoder, UNet, UNetConfig
from models.runtime import RuntimeOptions, apply_runtime_options, resolve_auto
from models.two_stage import TwoStage, TwoStageConfig
from training.ema import ExponentialMovingAverage
from training.nonfinite import NonFiniteGuard


@dataclasses.dataclass(frozen=True)
class Workload:
    """A problem size: image size, images per batch, samples per image for the metrics, network and encoder."""

    network: UNetConfig | TwoStageConfig
    height: int
    width: int
    batch_size: int
    num_samples: int
    encoder: EncoderConfig | None = None
    precision: Literal["auto", "float32", "bfloat16"] = "auto"

    def __str__(self) -> str:
        features = "" if self.encoder is None else ", DINO"
        return f"C = {self.num_classes}, {self.height} x {self.width}{features}, batch {self.batch_size}"

    @property
    def num_classes(self) -> int:
        """C, void included."""
        return self.network.num_classes

    def model(self, device: torch.device) -> CCDM:
        """A model with random weights (no layer is zero) and the runtime options of `auto`."""
        torch.manual_seed(0)
        network = UNet(self.network) if isinstance(self.network, UNetConfig) else TwoStage(self.network)
        encoder = DinoEncoder(self.encoder) if self.encoder else None
        for parameter in (*network.parameters(), *(encoder.parameters() if encoder else ())):
            if parameter.dim() > 1:
                nn.init.normal_(parameter, std=0.02)
        model = CCDM(network, get_process(self.num_classes), FrozenEncoder(encoder) if encoder else None).to(device)
        return apply_runtime_options(model, resolve_auto(RuntimeOptions(precision=self.precision), device))

    def images(self, device: torch.device) -> Tensor:
        """Gaussian noise: B x channels x H x W."""
        return torch.randn(self.batch_size, self.network.image_channels, self.height, self.width, device=device)

    def labels(self, device: torch.device, seed: int = 0) -> Tensor:
        """Uniform noise: B x H x W, uint8."""
        shape, generator = (self.batch_size, self.height, self.width), torch.Generator().manual_seed(seed)
        return torch.randint(self.num_classes, shape, dtype=torch.uint8, generator=generator).to(device)

    def annotations(self, number: int, device: torch.device, seed: int = 0) -> Tensor:
        """Label maps of one image with a disc per class that varies between annotators: 1 x number x H x W, uint8."""
        generator = torch.Generator().manual_seed(seed)
        rows, columns = torch.arange(self.height)[:, None], torch.arange(self.width)
        labels = torch.zeros(number, self.height, self.width, dtype=torch.uint8)
        for label in range(1, self.num_classes):
            center = torch.tensor([self.height, self.width, 0]) * label / self.num_classes
            jitter = self.height / 32 * torch.randn(number, 3, generator=generator)
            row, column, radius = (center + torch.tensor([0, 0, self.height / 8]) + jitter).T[..., None, None]
            labels[(rows - row) ** 2 + (columns - column) ** 2 < radius**2] = label
        return labels[None].to(device)


_DINO = EncoderConfig()
_FEATURES = FeatureCondition(channels=384, output_stride=8, target_layer=10)
_CITYSCAPES = UNetConfig(num_classes=20, image_channels=3, base_channels=64, channel_mult=(1, 1, 2, 2, 4, 4))
_TINY = UNetConfig(num_classes=3, channel_mult=(1, 1), attention_resolutions=(2,), num_res_blocks=1)

_QUICK_START = UNetConfig(
    num_classes=2, channel_mult=(2, 2), attention_resolutions=(4,), num_res_blocks=1, patch_size=2,
    scale_shift_norm=True,
)  # fmt: skip
_LIDC_SMALL = UNetConfig(
    num_classes=2, channel_mult=(1, 2, 4), attention_resolutions=(16,), num_res_blocks=1, patch_size=4,
    scale_shift_norm=True,
)  # fmt: skip

WORKLOADS = {
    "quick-start": Workload(_QUICK_START, 32, 32, batch_size=32, num_samples=100),
    "lidc": Workload(UNetConfig(num_classes=2), 128, 128, batch_size=4, num_samples=100),
    "lidc-small": Workload(_LIDC_SMALL, 128, 128, batch_size=4, num_samples=100),
    "cityscapes": Workload(_CITYSCAPES, 128, 256, batch_size=2, num_samples=16),
    "cityscapes-large": Workload(_CITYSCAPES, 256, 512, batch_size=2, num_samples=4),
    "cityscapes-patches": Workload(_CITYSCAPES.model_copy(update={"patch_size": 2}), 256, 512, 2, 4),
    "cityscapes-dino": Workload(_CITYSCAPES.model_copy(update={"feature": _FEATURES}), 256, 512, 1, 4, _DINO),
}
QUICK_WORKLOADS = [Workload(_TINY, 16, 16, batch_size=2, num_samples=4)]


class SyntheticDataset:
    """Random images in memory with one annotator each."""

    def __init__(self, workload: Workload, length: int) -> None:
        self.num_classes, self.image_channels = workload.num_classes, workload.network.image_channels
        self.images = torch.randn(length, self.image_channels, workload.height, workload.width)
        self.labels = workload.annotations(length, torch.device("cpu"))[0]

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"image": self.images[index], "labels": self.labels[index, None], "name": str(index)}


_LEARNING_RATE, _DECAY, _ANNOTATORS, _EPOCH, _BATCH, _STEPS = 1e-4, 0.9999, 4, 64, 16, 10

Case = Callable[[Workload, torch.device], tuple[Implementation, Implementation]]


def loss(workload: Workload, device: torch.device) -> tuple[Implementation, Implementation]:
    """The loss and its gradient with respect to the logits."""
    model = workload.model(device)
    process, (_, base) = model.process, baseline_of(model)
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
    training = baseline.BaselineTraining(*baseline_of(model), _LEARNING_RATE, _DECAY)
    hot, keys = baseline.one_hot(labels, workload.num_classes), torch.arange(len(labels), device=device)
    optimizer = torch.optim.Adam(model.parameters(), lr=_LEARNING_RATE, fused=True)
    guard, average = NonFiniteGuard(device), ExponentialMovingAverage(model, _DECAY)
    number = torch.ones((), dtype=torch.int64, device=device)

    def optimised() -> None:
        optimizer.zero_grad()
        total = model.loss(images, labels, keys).sum() / len(labels)
        total.backward()
        guard.inspect(optimizer, total.detach(), [p.grad for p in model.parameters() if p.grad is not None], number)
        optimizer.step()
        average.update(model, skip=guard.found_inf)

    return lambda: training.step(images, hot), optimised


def sampling(workload: Workload, device: torch.device) -> tuple[Implementation, Implementation]:
    """One label map per image in 10 steps with independent noise, as in the baseline."""
    model, images = workload.model(device), workload.images(device)
    network, process = baseline_of(model)
    return (
        lambda: baseline.sample(network, process, images, _STEPS),
        lambda: model.sample(images, 1, SamplingConfig(steps=_STEPS, sampler="ancestral")),
    )


def ged_hm_iou(workload: Workload, device: torch.device) -> tuple[Implementation, Implementation]:
    """GED and HM-IoU of one image with 4 annotators."""
    counts, num_classes = (_ANNOTATORS, workload.num_samples), workload.num_classes
    labels, samples = (workload.annotations(number, device, seed) for seed, number in enumerate(counts))
    long_labels, long_samples = labels.long(), samples.long()

    def optimised() -> tuple[Tensor, Tensor]:
        pairs = PairwiseOverlap.from_labels(labels, samples, num_classes)
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


def baseline_of(model: CCDM) -> tuple[baseline.BaselineNetwork, baseline.BaselineProcess]:
    """The baseline's network, with the same weights and precision, and its process."""
    assert isinstance(model.network, UNet)
    process = baseline.BaselineProcess(model.process.alpha_bar, model.process.num_classes)
    return baseline.BaselineNetwork(model.network, model.encoder, model.precision), process
