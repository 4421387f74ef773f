"""How a data set scales its images, so that they can be brought back to [0, 1] and forth."""

from typing import Any, NamedTuple

import torch
from torch import Tensor


class Normalisation(NamedTuple):
    """image = (x - mean) / std for intensities x in [0, 1]; both float32, channels x 1 x 1."""

    mean: Tensor
    std: Tensor

    @classmethod
    def from_dataset(cls, dataset: Any) -> "Normalisation":
        """That of a data set: its `image_mean` and `image_std`, or 0.5 and 0.5, which is [-1, 1]."""
        channels = dataset.image_channels
        values = (getattr(dataset, name, [0.5] * channels) for name in ("image_mean", "image_std"))
        return cls(*(torch.tensor(value, dtype=torch.float32).view(channels, 1, 1) for value in values))

    def to(self, device: torch.device) -> "Normalisation":
        """The same on another device."""
        return Normalisation(self.mean.to(device), self.std.to(device))

    def apply(self, intensities: Tensor) -> Tensor:
        """From [0, 1] to what the network sees: ... x channels x H x W."""
        return (intensities - self.mean) / self.std

    def undo(self, images: Tensor) -> Tensor:
        """From what the network sees to [0, 1]: ... x channels x H x W."""
        return images * self.std + self.mean
