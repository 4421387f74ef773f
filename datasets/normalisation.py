"""How a dataset scales its images, so that they can be mapped back to [0, 1]."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from datasets.contract import AnnotatedDataset


class Normalisation(NamedTuple):
    """image = (x - mean) / std for intensities x in [0, 1]; both float32, channels x 1 x 1."""

    mean: Tensor
    std: Tensor

    @classmethod
    def from_values(cls, mean: Sequence[float], std: Sequence[float]) -> "Normalisation":
        """From one mean and one standard deviation per channel."""
        return cls(*(torch.tensor(values, dtype=torch.float32)[:, None, None] for values in (mean, std)))

    @classmethod
    def from_dataset(cls, dataset: AnnotatedDataset) -> "Normalisation":
        """From the attributes `image_mean` and `image_std`; both are 0.5 by default, which scales to [-1, 1]."""
        default = [0.5] * dataset.image_channels
        return cls.from_values(getattr(dataset, "image_mean", default), getattr(dataset, "image_std", default))

    def to(self, device: torch.device) -> "Normalisation":
        """Move both to a device."""
        return Normalisation(self.mean.to(device), self.std.to(device))

    def apply(self, intensities: Tensor) -> Tensor:
        """From [0, 1] to the network's input: ... x channels x H x W."""
        return (intensities - self.mean) / self.std

    def undo(self, images: Tensor) -> Tensor:
        """From the network's input to [0, 1]: ... x channels x H x W."""
        return images * self.std + self.mean
