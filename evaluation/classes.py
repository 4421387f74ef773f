"""The classes that a semantic segmentation is evaluated on: all but void."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import matplotlib
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from datasets import AnnotatedDataset


@runtime_checkable
class SemanticDataset(AnnotatedDataset, Protocol):
    """A data set with a class that is not evaluated; see the docstring of `datasets`."""

    void_class: int


@dataclass(frozen=True)
class Classes:
    """The C' = C - 1 classes that are evaluated; a class is spoken of by its position among them, 0 .. C'-1.

    Attributes:
        kept: the data set's number of each.
        names: the name of each.
        ids: what stands for each in label files, uint8, C'.
        colours: red, green and blue of each, uint8, C' x 3, where the data set has colours.
    """

    kept: list[int]
    names: list[str]
    ids: NDArray[np.uint8]
    colours: NDArray[np.uint8] | None

    @staticmethod
    def of(data: SemanticDataset) -> "Classes":
        """The classes of a data set; without names they are called by their numbers, without ids these are the ids."""
        kept = [label for label in range(data.num_classes) if label != data.void_class]
        names = getattr(data, "class_names", [str(label) for label in range(data.num_classes)])
        ids = getattr(data, "class_ids", range(data.num_classes))
        colours = getattr(data, "class_colours", None)
        return Classes(
            kept,
            [names[label] for label in kept],
            np.array([ids[label] for label in kept], dtype=np.uint8),
            None if colours is None else np.array([colours[label] for label in kept], dtype=np.uint8),
        )

    def __len__(self) -> int:
        return len(self.kept)

    def palette(self) -> NDArray[np.uint8]:
        """Red, green and blue of each, made up where the data set has no colours, then void, black: (C' + 1) x 3."""
        colours = self.colours
        if colours is None:
            colours = matplotlib.colormaps["turbo"](np.linspace(0.1, 1, len(self)), bytes=True)[:, :3]
        return np.concatenate([colours, np.zeros((1, 3), dtype=np.uint8)])

    def positions(self, labels: Tensor) -> Tensor:
        """Label maps of the data set's numbers as positions; void becomes C'. Any shape, int64."""
        table = torch.full((len(self) + 1,), len(self), device=labels.device)
        table[self.kept] = torch.arange(len(self), device=labels.device)
        return table[labels.long()]
