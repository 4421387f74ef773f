"""Sizes of problems, and made-up images, label maps and networks of those sizes."""

import dataclasses
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from benchmarks.textbook import one_hot
from models import CCDM, DinoEncoder, EncoderConfig, FeatureCondition, FrozenEncoder, ProcessConfig, UNetConfig
from models.runtime import apply_runtime_options, resolve_auto
from utils.schema import RuntimeOptions


@dataclasses.dataclass(frozen=True)
class Size:
    """The size of a problem: label maps, how many of them at once, samples that are scored, network and encoder."""

    num_classes: int
    height: int
    width: int
    batch: int
    samples: int
    network: UNetConfig
    encoder: EncoderConfig | None = None

    def __str__(self) -> str:
        features = "" if self.encoder is None else ", DINO"
        return f"C = {self.num_classes}, {self.height} x {self.width}{features}, batch {self.batch}"


_CITYSCAPES = UNetConfig(20, 3, 64, (1, 1, 2, 2, 4, 4))
_DINO = EncoderConfig()
SIZES = {
    "lidc": Size(2, 128, 128, 4, 100, UNetConfig(2)),
    "cityscapes": Size(20, 128, 256, 2, 16, _CITYSCAPES),
    "cityscapes-large": Size(20, 256, 512, 2, 4, _CITYSCAPES),
    "cityscapes-dino": Size(
        20, 256, 512, 1, 4, dataclasses.replace(_CITYSCAPES, feature=FeatureCondition(384, 8, 10)), _DINO
    ),
}
QUICK_SIZES = {"tiny": Size(3, 16, 16, 2, 4, UNetConfig(3, 1, 32, (1, 1), (2,), 1))}


def model_of(size: Size, device: torch.device) -> CCDM:
    """A model computed as `auto` says for the device, with random weights in the place of zeros and of DINO's."""
    torch.manual_seed(0)
    model = CCDM(size.network, ProcessConfig(), _encoder_of(size)).to(device)
    for parameter in model.parameters():
        if parameter.dim() > 1 and not parameter.any():
            nn.init.normal_(parameter, std=0.01)
    return apply_runtime_options(model, resolve_auto(RuntimeOptions(), device))


def _encoder_of(size: Size) -> FrozenEncoder | None:
    if size.encoder is None:
        return None
    encoder = DinoEncoder(size.encoder)
    for parameter in encoder.parameters():
        nn.init.normal_(parameter, std=0.02)
    return FrozenEncoder(encoder)


def images_of(size: Size, device: torch.device) -> Tensor:
    """A batch of images of noise."""
    return torch.randn(size.batch, size.network.image_channels, size.height, size.width, device=device)


def labels_of(size: Size, device: torch.device, seed: int = 0) -> Tensor:
    """A batch of label maps of noise."""
    generator = torch.Generator().manual_seed(seed)
    shape = (size.batch, size.height, size.width)
    return torch.randint(size.num_classes, shape, dtype=torch.uint8, generator=generator).to(device)


def random_shapes(size: Size, number: int, device: torch.device, seed: int = 0) -> Tensor:
    """Label maps of one image with a disc of each class, which vary as those of annotators do: 1 x number x H x W."""
    generator = torch.Generator().manual_seed(seed)
    rows, columns = torch.arange(size.height)[:, None], torch.arange(size.width)
    maps = torch.zeros(1, number, size.height, size.width, dtype=torch.uint8)
    for label in range(1, size.num_classes):
        place = torch.tensor([label * size.height, label * size.width]) / size.num_classes
        for map_ in maps[0]:
            jitter = size.height / 32 * torch.randn(3, generator=generator)
            row, column, radius = torch.tensor([*place, size.height / 8]) + jitter
            map_[(rows - row) ** 2 + (columns - column) ** 2 < radius**2] = label
    return maps.to(device)


class Drawings:
    """A data set in memory, with one annotator."""

    def __init__(self, size: Size, length: int) -> None:
        self.num_classes, self.image_channels = size.num_classes, size.network.image_channels
        self.images = torch.randn(length, self.image_channels, size.height, size.width)
        self.labels = random_shapes(size, length, torch.device("cpu"))[0]

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"image": self.images[index], "labels": self.labels[index, None], "name": str(index)}


class OneHotDrawings(Dataset[tuple[Tensor, Tensor]]):
    """The same as pairs of an image and a one-hot label map."""

    def __init__(self, drawings: Drawings) -> None:
        self.drawings = drawings

    def __len__(self) -> int:
        return len(self.drawings)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        item = self.drawings[index]
        return item["image"], one_hot(item["labels"], self.drawings.num_classes)[0]
