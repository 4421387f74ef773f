"""Overlap (IoU, Dice) of every pair of label maps, from matrix products."""

from collections.abc import Callable

import torch
from torch import Tensor

from metrics.label_maps import check_pair

# Masks are compared in blocks of pixels of at most 16 MiB per side, for any image size. Counts in float32 are exact for
# blocks of less than 2^24 pixels.
_BLOCK_ELEMENTS = 2**22


def pairwise_iou(a: Tensor, b: Tensor, num_classes: int) -> Tensor:
    """Intersection over union of every pair of label maps, averaged over the classes other than background (0).

    Two maps that both lack a class have IoU 1 in it (Kohl et al., *A Probabilistic U-Net*, 2018, for two empty masks).

    Args:
        a: label maps, integer in [0, num_classes), B x N x H x W.
        b: label maps, integer in [0, num_classes), B x M x H x W.
        num_classes: number of classes, background included.

    Returns:
        IoU in [0, 1], float64, B x N x M.

    Two maps share one of three foreground pixels; two empty maps agree; an empty map and a lesion do not:

    >>> lesions = torch.tensor([[[[0, 1, 1, 0]], [[0, 0, 1, 1]], [[0, 0, 0, 0]]]])
    >>> pairwise_iou(lesions[:, :1], lesions, num_classes=2)
    tensor([[[1.0000, 0.3333, 0.0000]]], dtype=torch.float64)
    >>> pairwise_iou(lesions[:, 2:], lesions, num_classes=2)
    tensor([[[0., 0., 1.]]], dtype=torch.float64)
    """
    check_pair(a, b, num_classes, "a", "b")
    return mean_overlap(a, b, num_classes, iou)


def pairwise_dice(a: Tensor, b: Tensor, num_classes: int) -> Tensor:
    """Dice coefficient of every pair of label maps; arguments, averaging and empty masks as in `pairwise_iou`.

    >>> lesions = torch.tensor([[[[0, 1, 1, 0]], [[0, 0, 1, 1]]]])
    >>> pairwise_dice(lesions, lesions, num_classes=2)
    tensor([[[1.0000, 0.5000],
             [0.5000, 1.0000]]], dtype=torch.float64)
    """
    check_pair(a, b, num_classes, "a", "b")
    return mean_overlap(a, b, num_classes, dice)


def iou(intersection: Tensor, areas: Tensor) -> Tensor:
    """Intersection over union, from the intersection and the sum of the two areas (not 0)."""
    return intersection / (areas - intersection)


def dice(intersection: Tensor, areas: Tensor) -> Tensor:
    """Dice coefficient, from the intersection and the sum of the two areas (not 0)."""
    return 2 * intersection / areas


def mean_overlap(a: Tensor, b: Tensor, num_classes: int, overlap: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Mean over the foreground classes of `iou` or `dice`, for every pair of checked maps; 1 where both are empty."""
    total = torch.zeros(a.shape[0], a.shape[1], b.shape[1], dtype=torch.float64, device=a.device)
    for label in range(1, num_classes):
        intersection, areas = _count_pixels(a, b, label)
        total += torch.where(areas == 0, 1.0, overlap(intersection.double(), areas.double().clamp(min=1)))
    return total / (num_classes - 1)


def _count_pixels(a: Tensor, b: Tensor, label: int) -> tuple[Tensor, Tensor]:
    """Pixels of class `label` in both maps, and in one plus in the other, for every pair: two int64 B x N x M.

    Exact, since zeros and ones are exact in any precision of matrix products (TF32, bfloat16 inputs) and the sums of a
    block are exact in float32. Autocast would round the sums themselves, so it is disabled.
    """
    (batch, n), m = a.shape[:2], b.shape[1]
    block = max(1, _BLOCK_ELEMENTS // (batch * max(n, m)))
    same = b is a
    intersection = torch.zeros(batch, n, m, dtype=torch.int64, device=a.device)
    areas = torch.zeros_like(intersection)
    with torch.autocast(a.device.type, enabled=False):
        for block_a, block_b in zip(
            torch.split(a.flatten(2), block, -1), torch.split(b.flatten(2), block, -1), strict=True
        ):
            mask_a = (block_a == label).float()
            mask_b = mask_a if same else (block_b == label).float()
            intersection += torch.bmm(mask_a, mask_b.mT).long()
            areas += mask_a.sum(-1).long()[:, :, None] + mask_b.sum(-1).long()[:, None, :]
    return intersection, areas
