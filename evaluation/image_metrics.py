"""The metrics of an evaluation, computed image by image.

A new metric is a function of a `Comparison` (or, for data with one label map per image and a void class, of a
`FusedComparison`) and an entry of `_METRICS`. A metric whose values change gets a new `version`, so that cached values
are not used.
"""

import copy
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

import metrics
from datasets.loading import EvaluationBatch
from evaluation.predictors import FusedPrediction, Prediction, fused_label_map
from utils.errors import UserError

Task = Literal["distribution", "segmentation"]
"""Samples against several annotators, or one fused map against one label map, void excluded."""

_IGNORED = 255


class Comparison:
    """The annotators' label maps of a batch and a `Prediction`.

    With a class `void`, its pixels are excluded (see `metrics.ged`), and the other classes are numbered without it; a
    sample that is void where the annotators are not counts as the most probable other class.
    """

    def __init__(self, batch: EvaluationBatch, prediction: Prediction, num_classes: int, void: int | None) -> None:
        self.labels, self.present, self.from_annotators = batch.labels, batch.present, prediction.from_annotators
        self.samples, self.probabilities = prediction.labels, prediction.probabilities
        self.num_classes, self.ignore_index = num_classes, None if void is None else _IGNORED
        if void is not None:
            kept = [label for label in range(num_classes) if label != void]
            position = torch.full((num_classes,), _IGNORED, dtype=torch.uint8)
            position[kept] = torch.arange(len(kept), dtype=torch.uint8)
            probabilities = self.probabilities[:, kept]
            most_probable = probabilities.argmax(1, keepdim=True).to(torch.uint8)
            self.samples = torch.where(self.samples == void, most_probable, position[self.samples.long()])
            self.labels, self.num_classes = position[self.labels.long()], len(kept)
            self.probabilities = probabilities / probabilities.sum(1, keepdim=True).clamp(min=1e-30)

    def first(self, n: int) -> "Comparison":
        """The same with the first n samples only."""
        part = copy.copy(self)
        part.samples, part.pairs = self.samples[:, :n], self.pairs.first(n)
        return part

    @property
    def maps(self) -> tuple[Tensor, Tensor, int, Tensor, int | None]:
        """The arguments that most functions of `metrics` have in common."""
        return self.labels, self.samples, self.num_classes, self.present, self.ignore_index

    @cached_property
    def pairs(self) -> metrics.PairwiseOverlap:
        """IoU of all pairs of label maps."""
        return metrics.PairwiseOverlap.from_labels(*self.maps)

    @cached_property
    def dice_pairs(self) -> metrics.PairwiseOverlap:
        """Dice of all pairs of label maps."""
        return metrics.PairwiseOverlap.from_labels(*self.maps, overlap=metrics.dice)

    @cached_property
    def frequencies(self) -> Tensor:
        """Class frequencies among the annotators: B x C x H x W."""
        return metrics.label_frequencies(self.labels, self.num_classes, self.present, self.ignore_index)

    @cached_property
    def sample_frequencies(self) -> Tensor:
        """Class frequencies among the samples, likewise; 0 where `frequencies` are."""
        counted = self.frequencies.sum(1, keepdim=True) > 0
        return metrics.label_frequencies(self.samples, self.num_classes) * counted

    def bins(self, probabilities: Tensor) -> Tensor:
        """Calibration bins of every image: B x 3 x bins."""
        pairs = zip(probabilities, self.frequencies, strict=True)
        return torch.stack([metrics.calibration_bins(p[None], f[None]) for p, f in pairs])


class FusedComparison(NamedTuple):
    """The one label map of every image of a batch, and fused maps, B x C x H x W; `void` is not evaluated."""

    batch: EvaluationBatch
    fused: Tensor
    void: int | None

    def confusion(self, truths: Sequence[Tensor]) -> Tensor | None:
        """The confusion matrix of every image at the size of its truth: int64, B x C x C; None without truths."""
        matrices = [
            metrics.confusion_matrix(truth.to(maps.device), fused_label_map(maps, truth.shape), len(maps), self.void)
            for maps, truth in zip(self.fused, truths, strict=False)
        ]
        return torch.stack(matrices) if matrices else None


class Metric(NamedTuple):
    """A metric of predictions.

    `compute` returns one value per image (B), or statistics (B x ...) whose sum over images `pool` turns into the
    metric and `by_class` into one value per class; None if the metric has no meaning for what was predicted.
    """

    name: str  # key in result files
    title: str  # in tables and figures
    compute: Callable[[Any], Tensor | None]
    better: int = 0  # 1 if higher is better, -1 if lower, 0 if neither
    by_num_samples: bool = False  # reported at every number of samples, rather than once for all samples
    pool: Callable[[Tensor], Tensor] | None = None
    by_class: Callable[[Tensor], Tensor] | None = None
    has_interval: bool = True  # False for a biased estimate, of which a bootstrap interval makes no sense
    percent: bool = False  # displayed in percent
    decimals: int = 4  # displayed
    task: Task | None = "distribution"  # of the data that it is computed for; None for both
    version: int = 1  # changes when the values do
    definition: str = ""  # shown in the report
    variant: bool = False  # of other papers; in a table of its own


def _of_several(function: Callable[[Comparison], Tensor]) -> Callable[[Comparison], Tensor | None]:
    """A metric that has a meaning for several samples only."""
    return lambda c: function(c) if c.samples.shape[1] > 1 else None


def _of_mean(function: Callable[[Comparison], Tensor]) -> Callable[[Comparison], Tensor | None]:
    """A metric that compares the annotators' mean with that of the prediction."""
    return lambda c: None if c.from_annotators else function(c)


_METRICS = [
    Metric(
        "ged", "GED", lambda c: metrics.ged_from(c.pairs).ged, -1, by_num_samples=True,
        definition="2 E d(label, sample) - E d(label, label') - E d(sample, sample'), all ordered pairs, diagonal "
        "included; d is 1 - mean IoU over the classes except background; two empty masks have IoU 1",
    ),
    Metric(
        "hm_iou", "HM-IoU", lambda c: metrics.hm_iou_from(c.pairs), 1, by_num_samples=True,
        definition="both sides repeated to their least common multiple, Hungarian matching, mean IoU of the pairs",
    ),
    Metric(
        "diversity_samples", "Diversity", _of_several(lambda c: metrics.ged_from(c.pairs).diversity_samples),
        by_num_samples=True, definition="E d(sample, sample'), or E d(label, label') of the annotators",
    ),
    Metric("diversity_labels", "Diversity of annotators", lambda c: metrics.ged_from(c.pairs).diversity_labels),
    Metric("max_dice", "Matched Dice", lambda c: metrics.hm_iou_from(c.dice_pairs), 1),
    Metric("dice_of_mean", "Dice of mean", _of_mean(lambda c: metrics.dice_of_mean(*c.maps)), 1),
    Metric("iou_of_mean", "IoU of mean", _of_mean(lambda c: metrics.iou_of_mean(*c.maps)), 1),
    Metric("ncc", "NCC", _of_several(lambda c: metrics.normalised_cross_correlation(*c.maps)), 1),
    Metric("brier", "Brier score", _of_mean(lambda c: metrics.brier_score(c.probabilities, c.frequencies)), -1),
    Metric(
        "ece", "ECE of probabilities", _of_mean(lambda c: c.bins(c.probabilities)), -1,
        pool=metrics.expected_calibration_error, has_interval=False,
        definition="10 equal bins over all pixels and classes, against the annotators' frequencies",
    ),
    Metric(
        "ece_samples", "ECE of samples",
        _of_mean(lambda c: c.bins(metrics.label_frequencies(c.samples, c.num_classes))), -1,
        pool=metrics.expected_calibration_error, has_interval=False,
    ),
    Metric(
        "ged_unbiased", "GED without the diagonal", _of_several(lambda c: metrics.unbiased_ged_from(c.pairs)), -1,
        variant=True, definition="comparable between any numbers of samples; may be below 0",
    ),
    Metric(
        "ged_dice", "GED with Dice", lambda c: metrics.ged_from(c.dice_pairs).ged, -1, variant=True,
        definition="d is 1 - mean Dice",
    ),
    Metric(
        "soft_dice", "Dice_soft",
        _of_mean(lambda c: metrics.soft_dice(c.frequencies, c.sample_frequencies)), 1,
        variant=True, definition="Dice of the class frequencies of annotators and samples, binarised at 0.1, 0.3, 0.5, "
        "0.7 and 0.9 (Q-Dice of QUBIQ)",
    ),
    Metric(
        "dice_max", "Dice_max", lambda c: metrics.best_of_samples_from(c.dice_pairs), 1, variant=True,
        definition="every annotator with its best sample, which may be the same for several (D-Persona)",
    ),
    Metric(
        "dice_max_samples", "Dice_max of samples", lambda c: metrics.best_of_annotators_from(c.dice_pairs), 1,
        variant=True, definition="every sample with its closest annotator",
    ),
    Metric(
        "dice_match", "Dice_match", lambda c: metrics.rectangular_matching_from(c.dice_pairs), 1, variant=True,
        definition="one-to-one matching without repetition, of which the best A of n samples count (D-Persona)",
    ),
    Metric(
        "iou_match", "IoU, matched without repetition", lambda c: metrics.rectangular_matching_from(c.pairs), 1,
        variant=True, definition="the HM-IoU of Flow-SSN, which exceeds that of most papers",
    ),
    Metric(
        "area_crps", "CRPS of the area, %", lambda c: metrics.area_crps(*c.maps), -1, variant=True,
        definition="continuous ranked probability score of the areas, in percent of the image",
    ),
    Metric(
        "coverage", "Coverage", lambda c: metrics.coverage_from(c.pairs), 1, by_num_samples=True, variant=True,
        definition="share of the annotators with whom a sample has an IoU of at least 0.5",
    ),
    Metric(
        "combined_sensitivity", "S_c", lambda c: metrics.combined_sensitivity(*c.maps), 1, variant=True,
        definition="sensitivity of the union of all samples to the union of all annotations (CIMD)",
    ),
    Metric(
        "diversity_agreement", "D_a", _of_several(lambda c: metrics.diversity_agreement_from(c.dice_pairs)), 1,
        variant=True, definition="agreement of the smallest and the largest distance, 1 - Dice, of two annotators and "
        "of two samples; with S_c and Dice_max the parts of the CI score of CIMD",
    ),
    Metric("bits_per_pixel", "Bits per pixel, upper bound", lambda c: None, -1),  # this and the next: see evaluate.py
    Metric("seconds", "Seconds per image", lambda c: None, -1, has_interval=False, decimals=3, task=None),
    Metric(
        "miou", "Mean IoU", lambda c: c.confusion(list(c.batch.labels[:, 0])), 1, by_num_samples=True,
        pool=metrics.mean_iou, by_class=metrics.iou_per_class, percent=True, decimals=2, task="segmentation",
        definition="TP / (TP + FP + FN) of one confusion matrix over all images, without pixels whose true class is "
        "void, averaged over the classes that occur; at the size of the network's images, as in the paper",
    ),
    Metric(
        "miou_original", "Mean IoU, original size",
        lambda c: c.confusion([labels[0] for labels in c.batch.original_labels]), 1, by_num_samples=True,
        pool=metrics.mean_iou, by_class=metrics.iou_per_class, percent=True, decimals=2, task="segmentation",
        definition="the same against labels at their original size: fused maps are resized bilinearly, then arg max",
    ),
]  # fmt: skip

METRICS = {metric.name: metric for metric in _METRICS}
"""All metrics by name."""

SELECTION: dict[Task, list[str]] = {"distribution": ["ged", "hm_iou"], "segmentation": ["miou"]}
"""The metrics that select the best checkpoint of a training."""


def task_metrics(task: Task) -> list[Metric]:
    """The metrics of a task."""
    return [metric for metric in METRICS.values() if metric.task in (task, None)]


def column(name: str, num_samples: int | None) -> str:
    """The key of a metric in `ImageScores.values`, such as `ged_16` or `brier`."""
    return name if num_samples is None else f"{name}_{num_samples}"


def compute_metrics(
    batch: EvaluationBatch,
    prediction: Prediction | FusedPrediction,
    num_classes: int,
    void: int | None,
    num_samples: Sequence[int],
) -> dict[str, Tensor]:
    """All metrics of a batch, by `column`: one value per image, or statistics to pool.

    A prediction with fewer samples than any of `num_samples` is evaluated at the number it has.
    """
    compared: dict[int | None, Any]
    if isinstance(prediction, FusedPrediction):
        task: Task = "segmentation"
        maps = zip(prediction.num_samples, prediction.maps.unbind(1), strict=True)
        compared = {n: FusedComparison(batch, fused, void) for n, fused in maps}
        whole = {None: list(compared.values())[-1]}
    else:
        task, whole = "distribution", {None: Comparison(batch, prediction, num_classes, void)}
        available = prediction.labels.shape[1]
        counts = [n for n in num_samples if n <= available] or [available]
        compared = {n: whole[None].first(n) for n in counts}
    values = {
        column(metric.name, n): metric.compute(part)
        for metric in task_metrics(task)
        for n, part in (compared if metric.by_num_samples else whole).items()
    }
    return {name: value for name, value in values.items() if value is not None}


def check_annotated(batch: EvaluationBatch, void: int, task: Task) -> None:
    """Refuse images without a pixel that is not void or, for "segmentation", with several label maps. Raises UserError,
    naming the image."""
    for row, name in enumerate(batch.names):
        labels = batch.labels[row][batch.present[row]]
        if task == "segmentation" and len(labels) != 1:
            raise UserError(f"{name} has {len(labels)} label maps, but other images of this dataset have one each")
        maps = [labels, *batch.original_labels[row : row + 1]]
        if all(bool((annotators == void).any(0).all()) for annotators in maps):
            raise UserError(
                f"{name} has no annotations: all of its pixels are void; choose a dataset_split with public "
                f"annotations (val for Cityscapes)"
            )
