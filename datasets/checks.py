"""What is wrong with images and label maps, said in one sentence that names the place."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from utils.errors import UserError


def label_maps(values: NDArray[Any], num_classes: int, where: str) -> Tensor:
    """Label maps of any numeric type as uint8, in the same shape.

    Args:
        values: classes 0 .. C-1.
        num_classes: C, at most 256.
        where: what to call the place in the message.

    Raises:
        UserError: for a value that is not a class.
    """
    valid = (values >= 0) & (values < num_classes)
    if values.dtype.kind == "f":
        valid &= values == np.floor(values)
    if not valid.all():
        at = tuple(int(axis[0]) for axis in np.nonzero(~valid))
        raise UserError(f"{where}: label {values[at]} at {at}; expected classes 0 .. {num_classes - 1}")
    return torch.from_numpy(values.astype(np.uint8))


def check_item(item: dict[str, Any], dataset: Any, index: int) -> None:
    """Check item `index` of a data set against the contract in the package's docstring.

    Raises:
        UserError: for shapes that disagree, an image that is not finite or not float32, and labels outside 0 .. C-1.
    """
    image, labels = item["image"], item["labels"]
    where = f"{getattr(dataset, 'source', type(dataset).__name__)}: {item['name']} (index {index})"
    if image.dtype != torch.float32 or image.ndim != 3 or len(image) != dataset.image_channels:
        raise UserError(
            f"{where}: the image is {_described(image)}; expected float32, {dataset.image_channels} x H x W"
        )
    if labels.is_floating_point() or labels.ndim != 3 or len(labels) == 0 or labels.shape[1:] != image.shape[1:]:
        raise UserError(
            f"{where}: the labels are {_described(labels)}; expected integers, annotators x "
            f"{image.shape[1]} x {image.shape[2]} as the image"
        )
    if not image.isfinite().all():
        at = tuple(int(axis[0]) for axis in (~image.isfinite()).nonzero(as_tuple=True))
        raise UserError(f"{where}: the image is {image[at]:g} at {at}; expected finite values")
    if int(labels.max()) >= dataset.num_classes or int(labels.min()) < 0:
        label_maps(labels.numpy(), dataset.num_classes, where)


def _described(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"
