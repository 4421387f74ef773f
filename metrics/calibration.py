"""How well the samples' mean probabilities match the annotators' frequencies: reliability, ECE, Brier score."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Reliability:
    """The points of a reliability diagram, one per bin of confidence: float64, num_bins; NaN where a bin is empty."""

    confidence: Tensor  # mean probability in the bin
    frequency: Tensor  # mean frequency among the annotators of the same pixels and classes
    count: Tensor  # pairs (pixel, class) in the bin


def calibration_bins(probabilities: Tensor, frequencies: Tensor, num_bins: int = 10) -> Tensor:
    """Sums from which `reliability` and `expected_calibration_error` are computed; add them up over batches.

    Every pair (pixel, class) counts once, background too, in one of `num_bins` equal bins of its probability: the
    first is [0, 1/num_bins), the last [1 - 1/num_bins, 1]. Pixels whose frequencies are all zero are void and left out.

    Args:
        probabilities: mean class probabilities of the samples, in [0, 1], B x C x H x W.
        frequencies: class frequencies among the annotators, in [0, 1], B x C x H x W (see `label_frequencies`).
        num_bins: number of bins.

    Returns:
        float64, 3 x num_bins: count, sum of probabilities, sum of frequencies.

    >>> probabilities, frequencies = torch.tensor([[[[0.8]], [[0.2]]]]), torch.tensor([[[[1.0]], [[0.0]]]])
    >>> calibration_bins(probabilities, frequencies, num_bins=2)
    tensor([[1.0000, 1.0000],
            [0.2000, 0.8000],
            [0.0000, 1.0000]], dtype=torch.float64)
    """
    _check(probabilities, frequencies)
    counted = _counted(frequencies)[:, None].expand_as(frequencies)
    confidence, frequency = probabilities[counted].double(), frequencies[counted].double()
    bins = (confidence * num_bins).long().clamp(max=num_bins - 1)
    return torch.stack(
        [torch.bincount(bins, weight, num_bins) for weight in (torch.ones_like(confidence), confidence, frequency)]
    )


def reliability(bins: Tensor) -> Reliability:
    """Mean confidence and mean frequency of each bin of `calibration_bins`, for a reliability diagram.

    >>> reliability(torch.tensor([[2.0, 0.0], [0.5, 0.0], [1.0, 0.0]], dtype=torch.float64)).frequency
    tensor([0.5000,    nan], dtype=torch.float64)
    """
    count, confidence, frequency = bins
    return Reliability(confidence / count, frequency / count, count)


def expected_calibration_error(bins: Tensor) -> Tensor:
    """Expected calibration error: mean over the bins, by their counts, of |mean confidence - mean frequency|.

    Naeini et al., *Obtaining Well Calibrated Probabilities Using Bayesian Binning*, 2015, with the annotators'
    frequency instead of a single truth and every class counted, not only the most probable.

    Args:
        bins: sums of `calibration_bins`, 3 x num_bins.

    Returns:
        Error in [0, 1] over all pixels, float64, a scalar.

    One pixel, predicted 0.8 and 0.2, on which the annotators agree: (|0.8 - 1| + |0.2 - 0|) / 2.

    >>> probabilities, frequencies = torch.tensor([[[[0.8]], [[0.2]]]]), torch.tensor([[[[1.0]], [[0.0]]]])
    >>> expected_calibration_error(calibration_bins(probabilities, frequencies))
    tensor(0.2000, dtype=torch.float64)
    """
    count, confidence, frequency = bins
    error: Tensor = (confidence - frequency).abs().sum() / count.sum()
    return error


def brier_score(probabilities: Tensor, frequencies: Tensor) -> Tensor:
    """Brier score of each image: mean over pixels of the sum over classes of (probability - frequency)^2.

    Brier, *Verification of Forecasts Expressed in Terms of Probability*, 1950, with the annotators' frequency
    instead of a single truth, so that 0 can be reached where annotators disagree. The sum runs over all classes: with
    two, it is twice the squared error of the foreground alone. Pixels whose frequencies are all zero are void and left
    out of the mean.

    Args:
        probabilities: mean class probabilities of the samples, in [0, 1], B x C x H x W.
        frequencies: class frequencies among the annotators, in [0, 1], B x C x H x W.

    Returns:
        Score in [0, 2], float64, B.

    >>> brier_score(torch.tensor([[[[0.8]], [[0.2]]]]), torch.tensor([[[[1.0]], [[0.0]]]]))  # 0.2^2 + 0.2^2
    tensor([0.0800], dtype=torch.float64)
    """
    _check(probabilities, frequencies)
    counted = _counted(frequencies)
    errors = (probabilities.double() - frequencies.double()).square().sum(1)
    return (errors * counted).sum((1, 2)) / counted.sum((1, 2))


def _counted(frequencies: Tensor) -> Tensor:
    """Pixels that are not void (see `label_frequencies`), whose frequencies sum to one: bool, B x H x W."""
    return frequencies.sum(1) > 0.5


def _check(probabilities: Tensor, frequencies: Tensor) -> None:
    if probabilities.ndim != 4 or probabilities.shape != frequencies.shape:
        raise ValueError(
            f"probabilities {tuple(probabilities.shape)} and frequencies {tuple(frequencies.shape)}: "
            "expected the same B x C x H x W"
        )
    for name, values in (("probabilities", probabilities), ("frequencies", frequencies)):
        low, high = (float(value) for value in torch.aminmax(values))
        # Averages of float32 samples may pass 1 by rounding. Negated, so that NaN is refused too.
        if not (low >= -1e-4 and high <= 1 + 1e-4):
            raise ValueError(f"{name} range from {low:.4g} to {high:.4g}: expected 0 to 1; were logits passed?")
