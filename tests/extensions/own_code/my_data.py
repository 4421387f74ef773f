"""A dataset of bright squares, each outlined by two annotators, and an augmentation."""

from typing import Any

import torch
from torch import nn


class Squares:
    num_classes, image_channels, class_names = 2, 1, ("ground", "square")

    def __init__(self, split: str, number: int, side: int) -> None:
        self.split, self.number, self.side = split, number, side

    def __len__(self) -> int:
        return self.number

    def __getitem__(self, index: int) -> dict[str, Any]:
        labels = torch.zeros(2, self.side, self.side, dtype=torch.uint8)
        for annotator, length in enumerate((3 + index % 2, 4 + index % 3)):
            labels[annotator, 1 : 1 + length, 1 : 1 + length] = 1
        return {"image": labels.float().mean(0)[None] * 2 - 1, "labels": labels, "name": f"{self.split}_{index}"}


class Transpose(nn.Module):
    """Swap rows and columns of image and label map with probability 1/2."""

    def forward(self, image: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return (image.mT, mask.mT) if torch.rand(()) < 0.5 else (image, mask)


def get_dataset(split: str, number: int = 6, side: int = 8) -> Squares:
    return Squares(split, number, side)
