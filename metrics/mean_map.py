"""Mean maps of annotators or samples: class frequencies, and the overlap of the two majority votes."""

import torch
from torch import Tensor

from metrics.label_maps import comparable, counted_labels
from metrics.overlap import dice, iou, mean_overlap


def label_frequencies(
    labels: Tensor, num_classes: int, present: Tensor | None = None, ignore_index: int | None = None
) -> Tensor:
    """Share of the annotators (or samples) that gave each class to each pixel: the mean of the one-hot label maps.

    Args:
        labels: label maps, integer in [0, num_classes) or `ignore_index`, B x A x H x W.
        num_classes: number of classes, background included.
        present: B x A, bool, the annotators who labelled each image; all by default.
        ignore_index: label of void pixels, outside [0, num_classes).

    Returns:
        Frequencies in [0, 1], float32, B x C x H x W. They sum to one over the classes, but are all zero at a pixel
        that a present annotator gave `ignore_index`.

    Three annotators, two of whom mark the second pixel as foreground:

    >>> label_frequencies(torch.tensor([[[[0, 1]], [[0, 1]], [[0, 0]]]]), num_classes=2)
    tensor([[[[1.0000, 0.3333]],
    <BLANKLINE>
             [[0.0000, 0.6667]]]])
    """
    labels, present, counted = counted_labels(labels, num_classes, present, ignore_index)
    voting = present[:, :, None, None] & counted
    counts = torch.stack([((labels == label) & voting).sum(1) for label in range(num_classes)], 1)
    return counts / present.sum(1)[:, None, None, None]


def dice_of_mean(
    labels: Tensor, samples: Tensor, num_classes: int, present: Tensor | None = None, ignore_index: int | None = None
) -> Tensor:
    """Dice between the majority vote of the annotators and that of the samples; arguments as in `ged`.

    Each side's label maps are averaged as one-hot maps and the arg-max over the classes is taken; a tie goes to the
    lowest class, so half of the votes are not enough for a lesion. The two maps are then compared as in
    `pairwise_dice`: mean over the classes other than background, 1 where both lack a class.

    Returns:
        Dice in [0, 1], float64, B.

    The annotators' vote is [0, 1, 1, 0] (the last pixel is a tie), the samples' [0, 1, 0, 0]: 2 * 1 / (2 + 1).

    >>> labels = torch.tensor([[[[0, 1, 1, 0]], [[0, 1, 1, 1]]]])
    >>> samples = torch.tensor([[[[0, 1, 0, 0]]]])
    >>> dice_of_mean(labels, samples, num_classes=2)
    tensor([0.6667], dtype=torch.float64)
    """
    votes = _majority_votes(labels, samples, num_classes, present, ignore_index)
    return mean_overlap(*votes, num_classes, dice).flatten()


def iou_of_mean(
    labels: Tensor, samples: Tensor, num_classes: int, present: Tensor | None = None, ignore_index: int | None = None
) -> Tensor:
    """IoU between the majority vote of the annotators and that of the samples; all else as in `dice_of_mean`.

    >>> labels = torch.tensor([[[[0, 1, 1, 0]], [[0, 1, 1, 1]]]])
    >>> iou_of_mean(labels, samples=torch.tensor([[[[0, 1, 0, 0]]]]), num_classes=2)
    tensor([0.5000], dtype=torch.float64)
    """
    votes = _majority_votes(labels, samples, num_classes, present, ignore_index)
    return mean_overlap(*votes, num_classes, iou).flatten()


def _majority_votes(
    labels: Tensor, samples: Tensor, num_classes: int, present: Tensor | None, ignore_index: int | None
) -> tuple[Tensor, Tensor]:
    """Most frequent class of each pixel on both sides, the lowest one in a tie: two B x 1 x H x W."""
    labels, samples, present, _ = comparable(labels, samples, num_classes, present, ignore_index)
    by_labels = label_frequencies(labels, num_classes, present).argmax(1, keepdim=True)
    by_samples = label_frequencies(samples, num_classes).argmax(1, keepdim=True)
    return by_labels, by_samples
