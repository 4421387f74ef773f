"""Workloads: problem sizes, with random images, label maps, models and datasets of those sizes."""

import dataclasses
from typing import Any

import torch
from torch import Tensor, nn

from diffusion.uniform import get_process
from models import CCDM, DinoEncoder, EncoderConfig, FeatureCondition, FrozenEncoder, UNet, UNetConfig
from models.runtime import RuntimeOptions, apply_runtime_options, resolve_auto


@dataclasses.dataclass(frozen=True)
class Workload:
    """A problem size: image size, images per batch, samples per image for the metrics, network and encoder."""

    network: UNetConfig
    height: int
    width: int
    batch_size: int
    num_samples: int
    encoder: EncoderConfig | None = None

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
        network, encoder = UNet(self.network), DinoEncoder(self.encoder) if self.encoder else None
        for parameter in (*network.parameters(), *(encoder.parameters() if encoder else ())):
            if parameter.dim() > 1:
                nn.init.normal_(parameter, std=0.02)
        model = CCDM(network, get_process(self.num_classes), FrozenEncoder(encoder) if encoder else None).to(device)
        return apply_runtime_options(model, resolve_auto(RuntimeOptions(), device))

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

WORKLOADS = {
    "lidc": Workload(UNetConfig(num_classes=2), 128, 128, batch_size=4, num_samples=100),
    "cityscapes": Workload(_CITYSCAPES, 128, 256, batch_size=2, num_samples=16),
    "cityscapes-large": Workload(_CITYSCAPES, 256, 512, batch_size=2, num_samples=4),
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
