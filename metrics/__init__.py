"""Metrics: pure functions of integer label maps, with the protocol of each in its docstring.

Label maps are integer tensors, B x N x H x W (N annotators or samples); class 0 is background. Results are float64,
one value per image unless stated otherwise. `ignore_index` excludes void pixels; see `ged`.
"""

from metrics.calibration import brier_score, calibration_bins, expected_calibration_error, reliability
from metrics.distribution import PairwiseOverlap, ged, ged_from, hm_iou, hm_iou_from, max_dice_matching
from metrics.intervals import Interval, bootstrap_interval, paired_bootstrap_interval
from metrics.mean_map import (
    dice_of_mean,
    iou_of_mean,
    label_frequencies,
    normalised_cross_correlation,
    predictive_entropy,
)
from metrics.overlap import dice, iou, pairwise_dice, pairwise_iou
from metrics.segmentation import confusion_matrix, iou_per_class, mean_iou
from metrics.variants import (
    area_crps,
    best_of_annotators_from,
    best_of_samples_from,
    combined_sensitivity,
    coverage_from,
    diversity_agreement_from,
    rectangular_matching_from,
    soft_dice,
    unbiased_ged_from,
)

__all__ = ["Interval", "PairwiseOverlap", "bootstrap_interval", "brier_score", "calibration_bins", "confusion_matrix"]
__all__ += ["dice_of_mean", "expected_calibration_error", "ged", "ged_from", "hm_iou", "hm_iou_from", "iou_of_mean"]
__all__ += ["iou_per_class", "label_frequencies", "max_dice_matching", "mean_iou", "normalised_cross_correlation"]
__all__ += ["paired_bootstrap_interval", "pairwise_dice", "pairwise_iou", "predictive_entropy", "reliability"]
__all__ += ["area_crps", "best_of_annotators_from", "best_of_samples_from", "dice", "iou"]
__all__ += ["combined_sensitivity", "coverage_from", "diversity_agreement_from"]
__all__ += ["rectangular_matching_from", "soft_dice", "unbiased_ged_from"]
