"""Variants of the metrics that other papers report, from pairs of label maps that were compared once.

They answer other questions than GED and HM-IoU as defined in `metrics.distribution`; compare numbers of one definition
only. `PairwiseOverlap` is computed with IoU or Dice. Each returns float64, B; NaN where it is not defined.
"""

from collections.abc import Sequence

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from metrics.distribution import PairwiseOverlap
from metrics.label_maps import comparable

THRESHOLDS = (0.1, 0.3, 0.5, 0.7, 0.9)


def unbiased_ged_from(pairs: PairwiseOverlap) -> Tensor:
    """GED whose means over two annotators or two samples leave out the diagonal, so that it estimates the distance of
    the distributions without bias and can be compared between any numbers of samples; it may be below 0. NaN for a
    single sample; a single annotator has no diversity.

    One annotator sees one pixel, the other two (d = 1/2); so do the samples: 2 (0 + 1/2 + 1/2 + 0) / 4 - 1/2 - 1/2.

    >>> maps = torch.tensor([[[[0, 1]], [[1, 1]]]])
    >>> unbiased_ged_from(PairwiseOverlap.from_labels(maps, maps, num_classes=2))
    tensor([-0.5000], dtype=torch.float64)
    """
    present, n = pairs.present, pairs.sample_sample.shape[1]
    number = present.sum(1).double()
    across = ((1 - pairs.label_sample) * present[:, :, None]).sum((1, 2)) / (number * n)
    both = present[:, :, None] & present[:, None]
    labels = ((1 - pairs.label_label) * both).sum((1, 2)) / (number * (number - 1)).clamp(min=1)
    samples = (1 - pairs.sample_sample).sum((1, 2)) / (n * (n - 1) if n > 1 else torch.nan)
    return 2 * across - labels - samples


def best_of_samples_from(pairs: PairwiseOverlap) -> Tensor:
    """Mean over the annotators of the overlap with their best sample, which may be the same for several (with Dice:
    Dice_max of D-Persona, Wu et al., 2024). It cannot fall as samples are added.

    >>> labels = torch.tensor([[[[0, 1]], [[1, 1]]]])
    >>> best_of_samples_from(PairwiseOverlap.from_labels(labels, labels[:, :1], num_classes=2))  # (1 + 1/2) / 2
    tensor([0.7500], dtype=torch.float64)
    """
    best = pairs.label_sample.amax(2)
    return (best * pairs.present).sum(1) / pairs.present.sum(1)


def best_of_annotators_from(pairs: PairwiseOverlap) -> Tensor:
    """Mean over the samples of the overlap with their closest annotator: how plausible single samples are.

    >>> labels = torch.tensor([[[[0, 1]], [[1, 1]]]])
    >>> best_of_annotators_from(PairwiseOverlap.from_labels(labels[:, :1], labels, num_classes=2))
    tensor([0.7500], dtype=torch.float64)
    """
    return pairs.label_sample.masked_fill(~pairs.present[:, :, None], -1).amax(1).mean(1)


def rectangular_matching_from(pairs: PairwiseOverlap) -> Tensor:
    """Mean overlap of the best one-to-one matching without repetition: of A annotators and n samples, the smaller
    number of pairs. With many samples only the best A of them count, so it exceeds HM-IoU (with IoU: the HM-IoU of
    Flow-SSN; with Dice: Dice_match of D-Persona).

    >>> labels = torch.tensor([[[[0, 1]], [[1, 1]]]])
    >>> rectangular_matching_from(PairwiseOverlap.from_labels(labels, labels[:, :1], num_classes=2))
    tensor([1.], dtype=torch.float64)
    """
    images = zip(pairs.label_sample.cpu().numpy(), pairs.present.cpu().numpy(), strict=True)
    overlaps = (overlap[present] for overlap, present in images)
    return pairs.label_sample.new_tensor(
        [overlap[linear_sum_assignment(overlap, maximize=True)].mean() for overlap in overlaps]
    )


def coverage_from(pairs: PairwiseOverlap, threshold: float = 0.5) -> Tensor:
    """Share of the annotators with whom at least one sample overlaps by `threshold` or more. It cannot fall as samples
    are added; over the number of samples it shows how many are needed.

    >>> labels = torch.tensor([[[[0, 0, 1]], [[1, 1, 1]]]])
    >>> coverage_from(PairwiseOverlap.from_labels(labels, labels[:, :1], num_classes=2))  # IoU of 1 and 1/3
    tensor([0.5000], dtype=torch.float64)
    """
    covered = pairs.label_sample.amax(2) >= threshold
    return (covered & pairs.present).sum(1) / pairs.present.sum(1).double()


def diversity_agreement_from(pairs: PairwiseOverlap) -> Tensor:
    """1 - (|a - x| + |b - y|) / 2, with the smallest distance a of two different annotators and x of two different
    samples, and the largest distances b and y; one alone has a distance of 0.

    With Dice, D_a of Rahman et al., 2023 (CIMD). They write "variance" of two masks without a definition, and public
    implementations take different ones; here it is the distance 1 - Dice.

    Annotators differ by 1/3, samples by 1:

    >>> from metrics import dice
    >>> labels, samples = torch.tensor([[[[0, 1]], [[1, 1]]]]), torch.tensor([[[[0, 1]], [[1, 0]]]])
    >>> diversity_agreement_from(PairwiseOverlap.from_labels(labels, samples, num_classes=2, overlap=dice))
    tensor([0.3333], dtype=torch.float64)
    """
    present = pairs.present[:, :, None] & pairs.present[:, None]
    labels, samples = (
        torch.stack(_extremes(1 - overlap, among))
        for overlap, among in ((pairs.label_label, present), (pairs.sample_sample, None))
    )
    return 1 - (labels - samples).abs().mean(0)


def _extremes(distances: Tensor, among: Tensor | None) -> tuple[Tensor, Tensor]:
    """The smallest and the largest distance of two different maps, of those `among` which pairs count; 0 if none do."""
    different = ~torch.eye(distances.shape[1], dtype=torch.bool, device=distances.device)
    different = different.expand_as(distances) if among is None else different & among
    smallest = distances.masked_fill(~different, torch.inf).amin((1, 2))
    largest = distances.masked_fill(~different, 0).amax((1, 2))
    return torch.where(different.any(2).any(1), smallest, 0), largest


def combined_sensitivity(
    labels: Tensor, samples: Tensor, num_classes: int, present: Tensor | None = None, ignore_index: int | None = None
) -> Tensor:
    """Share of the pixels that any annotator gave a class which any sample gave it, too; mean over the classes other
    than background, 1 for a class that no annotator saw (S_c of Rahman et al., 2023). Arguments as in `ged`.

    >>> labels, samples = torch.tensor([[[[0, 1, 0]], [[1, 1, 0]]]]), torch.tensor([[[[0, 1, 1]]]])
    >>> combined_sensitivity(labels, samples, num_classes=2)
    tensor([0.5000], dtype=torch.float64)
    """
    labels, samples, _, _ = comparable(labels, samples, num_classes, present, ignore_index)
    total = torch.zeros(len(labels), dtype=torch.float64, device=labels.device)
    for label in range(1, num_classes):
        seen, drawn = ((maps == label).any(1).flatten(1) for maps in (labels, samples))
        pixels = seen.sum(1).double()
        total += torch.where(pixels == 0, 1.0, (seen & drawn).sum(1) / pixels.clamp(min=1))
    return total / (num_classes - 1)


def soft_dice(labels: Tensor, samples: Tensor, thresholds: Sequence[float] = THRESHOLDS) -> Tensor:
    """Dice of the two class frequencies, both binarised at each of the thresholds, averaged over thresholds and classes
    other than background (Q-Dice of the QUBIQ challenge, Dice_soft of D-Persona); 1 where both are empty.

    Args:
        labels: frequencies of the classes among the annotators, B x C x H x W; see `label_frequencies`.
        samples: frequencies among the samples, or mean probabilities, likewise.

    The first pixel is at 1 and 1, the second at 1/2 and 1/4: they differ at the thresholds 0.3 and 0.5.

    >>> labels, samples = torch.tensor([[[[0, 0.5]], [[1, 0.5]]]]), torch.tensor([[[[0, 0.75]], [[1, 0.25]]]])
    >>> soft_dice(labels, samples)  # (1 + 2/3 + 2/3 + 1 + 1) / 5
    tensor([0.8667], dtype=torch.float64)
    """
    total = torch.zeros(len(labels), dtype=torch.float64, device=labels.device)
    for threshold in thresholds:
        a, b = (frequencies[:, 1:].flatten(2) >= threshold for frequencies in (labels, samples))
        areas = (a.sum(2) + b.sum(2)).double()
        total += torch.where(areas == 0, 1.0, 2 * (a & b).sum(2) / areas.clamp(min=1)).mean(1)
    return total / len(thresholds)


def area_crps(
    labels: Tensor, samples: Tensor, num_classes: int, present: Tensor | None = None, ignore_index: int | None = None
) -> Tensor:
    """Continuous ranked probability score of the areas of the classes other than background, in percent of the image:
    E |X - y| - E |X - X'| / 2 for the areas X of the samples and y of each annotator, averaged. Lower is better, 0 if
    all agree (Gneiting and Raftery, 2007). Arguments as in `ged`.

    Areas of 1 and 2 pixels, of an annotator 1 pixel, of two pixels: (0 + 1)/2 - (0 + 1 + 1 + 0)/8 = 1/4 pixel.

    >>> samples = torch.tensor([[[[0, 1]], [[1, 1]]]])
    >>> area_crps(samples[:, :1], samples, num_classes=2)
    tensor([12.5000], dtype=torch.float64)
    """
    labels, samples, present, counted = comparable(labels, samples, num_classes, present, ignore_index)
    pixels = counted.flatten(1).sum(1).double()[:, None]
    total = torch.zeros(len(labels), dtype=torch.float64, device=labels.device)
    for label in range(1, num_classes):
        y, x = (100 * (maps == label).flatten(2).sum(2) / pixels for maps in (labels, samples))
        spread = (x[:, :, None] - x[:, None]).abs().mean((1, 2)) / 2
        error = ((y[:, :, None] - x[:, None]).abs().mean(2) * present).sum(1) / present.sum(1)
        total += error - spread
    return total / (num_classes - 1)
