"""Everything that is measured on one batch of predictions, image by image."""

import torch
from torch import Tensor

from datasets.loading import EvaluationBatch
from evaluation.predictors import Prediction
from metrics import (
    PairwiseIoU,
    brier_score,
    calibration_bins,
    dice_of_mean,
    ged_from,
    hm_iou_from,
    iou_of_mean,
    label_frequencies,
    max_dice_matching,
    normalised_cross_correlation,
)

PER_COUNT = ("ged", "hm_iou", "diversity_samples")
"""Measures that depend on the number of samples n: their columns are called `ged_16` and so on."""

PER_IMAGE = ("diversity_labels", "max_dice", "dice_of_mean", "iou_of_mean", "ncc", "brier")
"""Measures taken once, from all samples."""

BINS = ("bins", "bins_samples")
"""Calibration bins of the predicted probabilities, and of the frequencies among the samples."""


def column(measure: str, count: int) -> str:
    """The name of a measure's column; `count` is the number of samples where the measure depends on it."""
    return f"{measure}_{count}" if measure in PER_COUNT else measure


def measure(batch: EvaluationBatch, prediction: Prediction, num_classes: int, counts: list[int]) -> dict[str, Tensor]:
    """All measures of a batch: vectors of B numbers, and the two calibration bins as B x 3 x bins.

    GED, HM-IoU and sample diversity are read off one set of draws, at each of `counts` samples.
    """
    labels, present, samples = batch.labels, batch.present, prediction.labels
    pairs = PairwiseIoU.from_labels(labels, samples, num_classes, present)
    values: dict[str, Tensor] = {}
    for count in counts:
        first = pairs.first(count)
        energy = ged_from(first)
        values[column("ged", count)] = energy.ged
        values[column("hm_iou", count)] = hm_iou_from(first)
        values[column("diversity_samples", count)] = energy.diversity_samples
        values["diversity_labels"] = energy.diversity_labels
    frequencies = label_frequencies(labels, num_classes, present)
    return {
        **values,
        "max_dice": max_dice_matching(labels, samples, num_classes, present),
        "dice_of_mean": dice_of_mean(labels, samples, num_classes, present),
        "iou_of_mean": iou_of_mean(labels, samples, num_classes, present),
        "ncc": normalised_cross_correlation(labels, samples, num_classes, present),
        "brier": brier_score(prediction.probabilities, frequencies),
        "bins": _bins_per_image(prediction.probabilities, frequencies),
        "bins_samples": _bins_per_image(label_frequencies(samples, num_classes), frequencies),
    }


def _bins_per_image(probabilities: Tensor, frequencies: Tensor) -> Tensor:
    return torch.stack([calibration_bins(p[None], f[None]) for p, f in zip(probabilities, frequencies, strict=True)])
