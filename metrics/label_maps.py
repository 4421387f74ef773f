"""What a batch of label maps must look like, and which of its annotators count."""

import torch
from torch import Tensor

_INTEGER_TYPES = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


def check_label_maps(maps: Tensor, num_classes: int, name: str) -> None:
    """Raise ValueError unless `maps` is B x N x H x W, integer, and within [0, num_classes)."""
    if num_classes < 2:
        raise ValueError(f"num_classes is {num_classes}: at least 2 are needed, background and one other class")
    if maps.ndim != 4 or maps.numel() == 0:
        raise ValueError(f"{name} has shape {tuple(maps.shape)}: expected non-empty B x N x H x W label maps")
    if maps.dtype not in _INTEGER_TYPES:
        raise ValueError(f"{name} has dtype {maps.dtype}: expected integer label maps, such as torch.uint8")
    low, high = (int(value) for value in torch.aminmax(maps))
    if low < 0 or high >= num_classes:
        raise ValueError(
            f"{name} holds classes {low} to {high}: expected 0 to {num_classes - 1}; map void pixels to a class first"
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


def without_absent(labels: Tensor, present: Tensor | None) -> tuple[Tensor, Tensor]:
    """Labels with the maps of absent annotators blanked, whatever filled them, and the mask (all True if None)."""
    if present is None:
        return labels, torch.ones(labels.shape[:2], dtype=torch.bool, device=labels.device)
    if present.dtype != torch.bool or present.shape != labels.shape[:2]:
        raise ValueError(
            f"present is {present.dtype} {tuple(present.shape)}: expected torch.bool {tuple(labels.shape[:2])}, "
            "images x annotators"
        )
    empty = ~present.any(1)
    if bool(empty.any()):
        raise ValueError(
            f"image {int(empty.nonzero()[0])} of the batch has no annotator present: leave it out of the evaluation"
        )
    return labels.masked_fill(~present[:, :, None, None], 0), present


def comparable(labels: Tensor, samples: Tensor, num_classes: int, present: Tensor | None) -> tuple[Tensor, Tensor]:
    """`without_absent`, after which labels and samples are known to be label maps of the same images."""
    labels, present = without_absent(labels, present)
    check_pair(labels, samples, num_classes, "labels", "samples")
    return labels, present
