"""Checks of label maps, and which of their annotators and pixels are compared."""

import torch
from torch import Tensor

_INTEGER_TYPES = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


def check_label_maps(maps: Tensor, num_classes: int, name: str) -> None:
    """Raise ValueError unless `maps` is B x N x H x W, integer, and within [0, num_classes)."""
    _check_form(maps, num_classes, name)
    low, high = (int(value) for value in torch.aminmax(maps))
    if low < 0 or high >= num_classes:
        raise ValueError(
            f"{name} holds classes {low} to {high}: expected 0 to {num_classes - 1}, or ignore_index in the labels"
        )


def check_pair(a: Tensor, b: Tensor, num_classes: int, name_a: str, name_b: str) -> None:
    """Raise ValueError unless a and b are label maps (`check_label_maps`) of the same images."""
    check_label_maps(a, num_classes, name_a)
    check_label_maps(b, num_classes, name_b)
    if a.shape[0] != b.shape[0] or a.shape[2:] != b.shape[2:]:
        raise ValueError(
            f"{name_a} and {name_b} have shapes {tuple(a.shape)} and {tuple(b.shape)}: "
            "expected the same batch size, height and width"
        )


def counted_labels(
    labels: Tensor, num_classes: int, present: Tensor | None, ignore_index: int | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Check labels, and set them to 0 where an annotator is absent and at pixels that do not count.

    Returns the labels, which annotators labelled each image (bool, B x A), and which pixels all of them labelled, so
    that they count (bool, B x 1 x H x W). Raises ValueError for an image without annotators or without such a pixel.
    """
    _check_form(labels, num_classes, "labels")
    if present is None:
        present = torch.ones(labels.shape[:2], dtype=torch.bool, device=labels.device)
    if present.dtype != torch.bool or present.shape != labels.shape[:2]:
        raise ValueError(
            f"present is {present.dtype} {tuple(present.shape)}: expected torch.bool {tuple(labels.shape[:2])}, "
            "images x annotators"
        )
    _check_each_image(present, "has no annotator present")
    labels = labels.masked_fill(~present[:, :, None, None], 0)
    counted = torch.ones_like(labels[:, :1], dtype=torch.bool)
    if ignore_index is not None:
        if 0 <= ignore_index < num_classes:
            raise ValueError(f"ignore_index is {ignore_index}: expected a label outside 0 to {num_classes - 1}")
        counted = (labels != ignore_index).all(1, keepdim=True)
        _check_each_image(counted, "has no pixel that all of its annotators labelled")
        labels = labels.masked_fill(~counted, 0)
    check_label_maps(labels, num_classes, "labels")
    return labels, present, counted


def comparable(
    labels: Tensor, samples: Tensor, num_classes: int, present: Tensor | None, ignore_index: int | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Check labels and samples and return them with the other results of `counted_labels`."""
    labels, present, counted = counted_labels(labels, num_classes, present, ignore_index)
    check_pair(labels, samples, num_classes, "labels", "samples")
    return labels, samples.masked_fill(~counted, 0), present, counted


def _check_form(maps: Tensor, num_classes: int, name: str) -> None:
    if num_classes < 2:
        raise ValueError(f"num_classes is {num_classes}: at least 2 are needed, background and one other class")
    if maps.ndim != 4 or maps.numel() == 0:
        raise ValueError(f"{name} has shape {tuple(maps.shape)}: expected non-empty B x N x H x W label maps")
    if maps.dtype not in _INTEGER_TYPES:
        raise ValueError(f"{name} has dtype {maps.dtype}: expected integer label maps, such as torch.uint8")


def _check_each_image(mask: Tensor, problem: str) -> None:
    empty = ~mask.flatten(1).any(1)
    if bool(empty.any()):
        raise ValueError(f"image {int(empty.nonzero()[0])} of the batch {problem}: leave it out of the evaluation")
