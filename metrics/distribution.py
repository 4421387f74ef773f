"""How close the distribution of the samples is to that of the annotations: GED, HM-IoU, maximum Dice matching."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from metrics.label_maps import comparable
from metrics.overlap import dice, iou, mean_overlap


class EnergyDistance(NamedTuple):
    """GED, in [0, 2], and its two within-set terms, in [0, 1], for each image: float64, B."""

    ged: Tensor
    diversity_labels: Tensor
    diversity_samples: Tensor


@dataclass(frozen=True)
class PairwiseOverlap:
    """IoU (or Dice) of all pairs among an image's A label maps and N samples, from which GED and HM-IoU are read at any
    n <= N.

    >>> labels = torch.tensor([[[[0, 1]], [[1, 1]]]])
    >>> samples = torch.tensor([[[[0, 1]], [[0, 0]], [[1, 1]]]])
    >>> pairs = PairwiseOverlap.from_labels(labels, samples, num_classes=2)
    >>> pairs.label_sample
    tensor([[[1.0000, 0.0000, 0.5000],
             [0.5000, 0.0000, 1.0000]]], dtype=torch.float64)
    >>> [round(float(ged_from(pairs.first(n)).ged), 4) for n in (1, 2, 3)]
    [0.25, 0.5, 0.1944]
    """

    label_sample: Tensor  # B x A x N
    label_label: Tensor  # B x A x A
    sample_sample: Tensor  # B x N x N
    present: Tensor  # B x A, False where an annotator is absent

    @classmethod
    def from_labels(
        cls,
        labels: Tensor,
        samples: Tensor,
        num_classes: int,
        present: Tensor | None = None,
        ignore_index: int | None = None,
        overlap: Callable[[Tensor, Tensor], Tensor] = iou,
    ) -> "PairwiseOverlap":
        """Compare all label maps (B x A x H x W) and samples (B x N x H x W) of each image by `metrics.overlap.iou` or
        `dice`; other arguments as in `ged`."""
        labels, samples, present, _ = comparable(labels, samples, num_classes, present, ignore_index)
        maps = torch.cat([labels, samples], 1)
        pairs = mean_overlap(maps, maps, num_classes, overlap)
        a = labels.shape[1]
        return cls(pairs[:, :a, a:], pairs[:, :a, :a], pairs[:, a:, a:], present)

    def first(self, n: int) -> "PairwiseOverlap":
        """The same for the first n samples only."""
        available = self.label_sample.shape[2]
        if not 1 <= n <= available:
            raise ValueError(f"asked for the first {n} samples of {available}: n must be 1 to {available}")
        return PairwiseOverlap(
            self.label_sample[..., :n], self.label_label, self.sample_sample[:, :n, :n], self.present
        )


def ged(
    labels: Tensor, samples: Tensor, num_classes: int, present: Tensor | None = None, ignore_index: int | None = None
) -> EnergyDistance:
    """Generalised energy distance between annotators and samples, with d = 1 - IoU of `pairwise_iou`.

    GED = 2 E d(label, sample) - E d(label, label') - E d(sample, sample'), means over all ordered pairs, the diagonal
    included (Kohl et al., *A Probabilistic U-Net*, 2018: the squared distance, no root). It falls as the number of
    samples n grows: never quote it without n.

    A pixel that any annotator of the image left void is left out of all comparisons of the image: between annotators,
    between samples, and between the two. Every distance is thus taken over the same pixels, without which GED is no
    distance: it would reward samples that differ where no annotator says anything, and could fall below 0.

    Args:
        labels: label maps of the annotators, integer in [0, num_classes) or `ignore_index`, B x A x H x W.
        samples: label maps drawn from the model, integer in [0, num_classes), B x N x H x W.
        num_classes: number of classes, background included and void not counted.
        present: B x A, bool, the annotators who labelled each image; all by default.
        ignore_index: label of void pixels, outside [0, num_classes); by default there are none.

    Returns:
        `ged`, `diversity_labels` = E d(label, label') and `diversity_samples` = E d(sample, sample'), each float64, B.

    One annotator sees one pixel, the other two, so d = 1/2 between them; both samples repeat the first annotator:
    GED = 2 (0 + 1/2)/2 - (0 + 1/2 + 1/2 + 0)/4 - 0 = 1/4.

    >>> labels = torch.tensor([[[[0, 1]], [[1, 1]]]])
    >>> samples = torch.tensor([[[[0, 1]], [[0, 1]]]])
    >>> ged(labels, samples, num_classes=2)  # doctest: +NORMALIZE_WHITESPACE
    EnergyDistance(ged=tensor([0.2500], dtype=torch.float64),
                   diversity_labels=tensor([0.2500], dtype=torch.float64),
                   diversity_samples=tensor([0.], dtype=torch.float64))

    Where the second annotator leaves the first pixel void, only the second pixel is compared, and all maps agree:

    >>> labels[0, 1, 0, 0] = 255
    >>> ged(labels, samples, num_classes=2, ignore_index=255).ged
    tensor([0.], dtype=torch.float64)
    """
    return ged_from(PairwiseOverlap.from_labels(labels, samples, num_classes, present, ignore_index))


def ged_from(pairs: PairwiseOverlap) -> EnergyDistance:
    """`ged` of pairs already compared, as in `ged_from(pairs.first(16))`."""
    weight = pairs.present / pairs.present.sum(1, keepdim=True, dtype=torch.float64)
    across = 1 - (weight[:, None] @ pairs.label_sample).mean((1, 2))
    labels = 1 - (weight[:, None] @ pairs.label_label @ weight[:, :, None]).flatten()
    samples = 1 - pairs.sample_sample.mean((1, 2))
    return EnergyDistance(2 * across - labels - samples, labels, samples)


def hm_iou(
    labels: Tensor, samples: Tensor, num_classes: int, present: Tensor | None = None, ignore_index: int | None = None
) -> Tensor:
    """Hungarian-matched IoU: mean IoU under the best one-to-one matching of annotators and samples.

    Both sides are repeated to the least common multiple of their sizes (Kohl et al., *A Hierarchical Probabilistic
    U-Net*, 2019). Arguments as in `ged`.

    Returns:
        HM-IoU in [0, 1], float64, B.

    Two annotators and one sample, which is used twice: (1 + 1/2) / 2.

    >>> labels = torch.tensor([[[[0, 1]], [[1, 1]]]])
    >>> hm_iou(labels, samples=torch.tensor([[[[0, 1]]]]), num_classes=2)
    tensor([0.7500], dtype=torch.float64)
    """
    return hm_iou_from(PairwiseOverlap.from_labels(labels, samples, num_classes, present, ignore_index))


def hm_iou_from(pairs: PairwiseOverlap) -> Tensor:
    """`hm_iou` of pairs already compared, as in `hm_iou_from(pairs.first(16))`."""
    return _mean_matched(pairs.label_sample, pairs.present)


def max_dice_matching(
    labels: Tensor, samples: Tensor, num_classes: int, present: Tensor | None = None, ignore_index: int | None = None
) -> Tensor:
    """Maximum Dice matching: `hm_iou` with Dice instead of IoU. Arguments as in `ged`; float64 in [0, 1], B.

    The matching is one to one, after repeating both sides to their least common multiple. Papers that match every
    annotator to its best sample, with reuse, report a larger number: `pairwise_dice(labels, samples,
    C).amax(2).mean(1)`.

    >>> labels = torch.tensor([[[[0, 1]], [[1, 1]]]])
    >>> max_dice_matching(labels, samples=torch.tensor([[[[0, 1]]]]), num_classes=2)  # (1 + 2/3) / 2
    tensor([0.8333], dtype=torch.float64)
    """
    labels, samples, present, _ = comparable(labels, samples, num_classes, present, ignore_index)
    return _mean_matched(mean_overlap(labels, samples, num_classes, dice), present)


def _mean_matched(overlap: Tensor, present: Tensor) -> Tensor:
    """Mean overlap of the best matching of the present annotators and the samples; overlap is B x A x N."""
    images = zip(overlap.cpu().numpy(), present.cpu().numpy(), strict=True)
    return overlap.new_tensor([_best_matching(image[rows]) for image, rows in images])


def _best_matching(overlap: NDArray[np.float64]) -> float:
    a, n = overlap.shape
    size = math.lcm(a, n)
    repeated = overlap.repeat(size // a, axis=0).repeat(size // n, axis=1)
    return float(repeated[linear_sum_assignment(repeated, maximize=True)].mean())
