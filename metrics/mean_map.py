"""Mean maps of annotators or samples: class frequencies, overlap of the majority votes, and uncertainty."""

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


_EPS = 1e-12


def predictive_entropy(probabilities: Tensor) -> Tensor:
    """Entropy of each pixel's class probabilities, in nats (divide by log 2 for bits).

    Args:
        probabilities: class probabilities, or frequencies among samples or annotators, in [0, 1], B x C x H x W.

    Returns:
        -sum_c p_c log p_c in [0, log C], with 0 log 0 = 0, in the dtype of `probabilities`, B x H x W.

    A toss-up between two classes has log 2 = 0.6931 nats; a certain pixel has none:

    >>> predictive_entropy(torch.tensor([[[[0.5, 1.0]], [[0.5, 0.0]]]]))
    tensor([[[0.6931, 0.0000]]])
    """
    if probabilities.ndim != 4:
        raise ValueError(f"probabilities have shape {tuple(probabilities.shape)}: expected B x C x H x W")
    entropy: Tensor = torch.special.entr(probabilities).sum(1)
    return entropy


def normalised_cross_correlation(
    labels: Tensor, samples: Tensor, num_classes: int, present: Tensor | None = None, ignore_index: int | None = None
) -> Tensor:
    """Normalised cross-correlation of the uncertainty maps: S_NCC of Baumgartner et al., *PHiSeg*, 2019.

    S_NCC = E_y NCC( E_s CE(s_mean, s), E_s CE(y, s) ), where y runs over the annotators, s over the samples, s_mean
    is the mean of the samples, CE the cross entropy of a pixel, -sum_c target_c log s_c, and NCC the correlation
    coefficient over an image's pixels (those not void, see `ged`). PHiSeg's samples are softmax maps; here they are
    label maps, where log 0 is replaced by log(eps). As NCC ignores scale and offset, eps cancels: with f the class
    frequencies among the samples, the two maps are, up to scale, 1 - sum_c f_c^2 and 1 - f_y.

    A map that is constant has no correlation: NCC is 0 there (covariance / max(product of standard deviations, 1e-12)).

    Arguments as in `ged`.

    Returns:
        S_NCC in [-1, 1], float64, B.

    Two samples differ in the last pixel: uncertainty [0, 0, 1/2]. Against the one annotator they err by [0, 0, 1/2]:

    >>> samples = torch.tensor([[[[0, 1, 0]], [[0, 1, 1]]]])
    >>> normalised_cross_correlation(torch.tensor([[[[0, 1, 1]]]]), samples, num_classes=2)
    tensor([1.], dtype=torch.float64)

    An annotator who instead misses the middle pixel has an error map [0, 1, 1/2], and the correlation vanishes:

    >>> normalised_cross_correlation(torch.tensor([[[[0, 0, 1]]]]), samples, num_classes=2).abs() < 1e-12
    tensor([True])
    """
    labels, samples, present, counted = comparable(labels, samples, num_classes, present, ignore_index)
    frequencies = label_frequencies(samples, num_classes).double()
    uncertainty = 1 - frequencies.square().sum(1, keepdim=True)
    error = 1 - frequencies.gather(1, labels.long())
    weight = present / present.sum(1, keepdim=True, dtype=torch.float64)
    return (weight * _correlation(uncertainty, error, counted)).sum(1)


def _correlation(a: Tensor, b: Tensor, counted: Tensor) -> Tensor:
    """Correlation coefficient of a (B x 1 x H x W) and b (B x A x H x W) over the counted pixels: B x A."""
    number = counted.sum((2, 3))

    def mean(values: Tensor) -> Tensor:
        return (values * counted).sum((2, 3)) / number

    a, b = (maps - mean(maps)[:, :, None, None] for maps in (a, b))
    return mean(a * b) / (mean(a.square()) * mean(b.square())).sqrt().clamp(min=_EPS)
