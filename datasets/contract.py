"""What a dataset offers, as types, and the checks that it does. See the package's docstring for the contract."""

from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from utils.errors import UserError

SPLITS = ("train", "val", "test")


class AnnotatedDataset(Protocol):
    """Images with the label maps of one or more annotators."""

    num_classes: int
    image_channels: int

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> dict[str, Any]: ...


@runtime_checkable
class KnownDistribution(Protocol):
    """A dataset that can sample label maps of its images from their true distribution."""

    def draw_labels(self, index: int, num_samples: int, seed: int = 0) -> Tensor:
        """Sample label maps of an image: uint8, num_samples x H x W."""

    def label_probabilities(self, index: int) -> Tensor:
        """The probability of every class at every pixel of an image: C x H x W."""


def check_item(item: dict[str, Any], dataset: AnnotatedDataset, index: int) -> None:
    """Check item `index` of a dataset. Raises UserError for shapes that disagree, an image that is not float32 or not
    finite, and labels outside 0 .. C-1."""
    image, labels = item["image"], item["labels"]
    where = f"{getattr(dataset, 'source', type(dataset).__name__)}: {item['name']} (index {index})"
    if image.dtype != torch.float32 or image.ndim != 3 or len(image) != dataset.image_channels:
        raise UserError(f"{where}: the image is {_form(image)}; expected float32, {dataset.image_channels} x H x W")
    if labels.is_floating_point() or labels.ndim != 3 or len(labels) == 0 or labels.shape[1:] != image.shape[1:]:
        raise UserError(
            f"{where}: the labels are {_form(labels)}; expected integers, annotators x H x W, of the image's size "
            f"{image.shape[1]} x {image.shape[2]}"
        )
    if not image.isfinite().all():
        at = tuple((~image.isfinite()).nonzero()[0].tolist())
        raise UserError(f"{where}: the image is {image[at]:g} at {at}; expected finite values")
    if int(labels.max()) >= dataset.num_classes or int(labels.min()) < 0:
        as_label_maps(labels.numpy(), dataset.num_classes, where)


def as_label_maps(values: NDArray[Any], num_classes: int, where: str) -> Tensor:
    """Convert label maps of any shape and numeric type, with classes 0 .. C-1 (C at most 256), to uint8.

    Raises UserError for a value that is not a class; `where` is the file or item, for the message.
    """
    valid = (values >= 0) & (values < num_classes)
    if values.dtype.kind == "f":
        valid &= values == np.floor(values)
    if not valid.all():
        at = tuple(np.argwhere(~valid)[0].tolist())
        raise UserError(f"{where}: label {values[at]} at {at}; expected classes 0 .. {num_classes - 1}")
    return torch.from_numpy(values.astype(np.uint8))


def _form(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"
