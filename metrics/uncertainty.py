"""Uncertainty maps, and how well they predict where samples and annotations differ."""

import torch
from torch import Tensor

from metrics.label_maps import comparable
from metrics.mean_map import label_frequencies

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
