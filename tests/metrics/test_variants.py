"""The metrics as other papers define them, against loops over pairs and permutations, and their properties."""

import numpy as np
import pytest
import torch

from metrics import (
    PairwiseOverlap,
    area_crps,
    best_of_annotators_from,
    best_of_samples_from,
    combined_sensitivity,
    coverage_from,
    dice,
    diversity_agreement_from,
    ged_from,
    hm_iou_from,
    label_frequencies,
    pairwise_dice,
    rectangular_matching_from,
    soft_dice,
    unbiased_ged_from,
)
from tests.metrics import reference


@pytest.mark.parametrize("num_classes", [2, 4])
@pytest.mark.parametrize(("annotators", "n"), [(2, 3), (4, 2), (3, 5)])
def test_agree_with_loops(num_classes: int, annotators: int, n: int) -> None:
    labels = reference.random_maps(num_classes, (3, annotators, 5, 4), seed=3)
    samples = reference.random_maps(num_classes, (3, n, 5, 4), seed=4)
    pairs = PairwiseOverlap.from_labels(labels, samples, num_classes)
    dices = PairwiseOverlap.from_labels(labels, samples, num_classes, overlap=dice)
    frequencies = (label_frequencies(maps, num_classes) for maps in (labels, samples))
    computed = {
        "unbiased_ged": unbiased_ged_from(pairs), "best_of_samples": best_of_samples_from(dices),
        "best_of_annotators": best_of_annotators_from(dices), "matching": rectangular_matching_from(dices),
        "coverage": coverage_from(pairs, 0.2), "diversity_agreement": diversity_agreement_from(dices),
        "combined_sensitivity": combined_sensitivity(labels, samples, num_classes),
        "soft_dice": soft_dice(*frequencies), "area_crps": area_crps(labels, samples, num_classes),
    }  # fmt: skip
    for image, (y, x) in enumerate(zip(labels.numpy(), samples.numpy(), strict=True)):
        expected = {
            "unbiased_ged": reference.unbiased_ged(y, x, num_classes),
            "best_of_samples": reference.best_of(y, x, num_classes),
            "best_of_annotators": reference.best_of(x, y, num_classes),
            "matching": reference.rectangular_matching(y, x, num_classes),
            "coverage": reference.coverage(y, x, num_classes, 0.2),
            "diversity_agreement": reference.diversity_agreement(y, x, num_classes),
            "combined_sensitivity": reference.combined_sensitivity(y, x, num_classes),
            "soft_dice": reference.soft_dice(y, x, num_classes),
            "area_crps": reference.area_crps(y, x, num_classes),
        }
        for name, value in expected.items():
            assert float(computed[name][image]) == pytest.approx(value, abs=1e-9), name
    assert torch.equal(dices.label_sample, pairwise_dice(labels, samples, num_classes))


def test_absent_annotators_change_nothing() -> None:
    labels, samples = reference.random_maps(3, (2, 4, 5, 4), seed=0), reference.random_maps(3, (2, 3, 5, 4), seed=1)
    present = torch.tensor([[True, True, False, True]] * 2)
    some = PairwiseOverlap.from_labels(labels, samples, 3, present)
    fewer = PairwiseOverlap.from_labels(labels[:, [0, 1, 3]], samples, 3)
    for function in (
        unbiased_ged_from, best_of_samples_from, best_of_annotators_from, rectangular_matching_from, hm_iou_from,
        coverage_from, diversity_agreement_from,
    ):  # fmt: skip
        assert torch.allclose(function(some), function(fewer), atol=1e-12)
    for of_maps in (area_crps, combined_sensitivity):
        assert torch.allclose(of_maps(labels, samples, 3, present), of_maps(labels[:, [0, 1, 3]], samples, 3))


def test_coverage_rises_with_samples_and_is_one_for_the_annotators_themselves() -> None:
    labels, samples = reference.random_maps(2, (4, 3, 5, 4), seed=0), reference.random_maps(2, (4, 9, 5, 4), seed=1)
    pairs = PairwiseOverlap.from_labels(labels, samples, 2)
    shares = torch.stack([coverage_from(pairs.first(n), 0.4) for n in range(1, 10)])
    assert (shares.diff(dim=0) >= 0).all()
    assert shares[0].mean() < shares[-1].mean()
    assert torch.equal(coverage_from(PairwiseOverlap.from_labels(labels, labels, 2)), torch.ones(4).double())


def test_class_that_no_annotator_saw_cannot_be_missed() -> None:
    empty, lesion = torch.zeros(1, 2, 2, 2, dtype=torch.uint8), torch.ones(1, 2, 2, 2, dtype=torch.uint8)
    assert combined_sensitivity(empty, lesion, 2).tolist() == combined_sensitivity(empty, empty, 2).tolist() == [1]
    assert combined_sensitivity(lesion, empty, 2).tolist() == [0]


def test_unbiased_ged_has_the_same_mean_for_any_number_of_samples() -> None:
    """Over many draws of a distribution of three maps; the usual GED falls with the number of samples."""
    maps, generator = reference.random_maps(2, (1, 3, 4, 4), seed=5)[0], torch.Generator().manual_seed(0)
    draws = maps[torch.randint(3, (4000, 8), generator=generator)]
    labels = maps[torch.randint(3, (4000, 4), generator=generator)]
    means, usual = [], []
    for n in (2, 8):
        pairs = PairwiseOverlap.from_labels(labels, draws[:, :n], 2)
        means.append(float(unbiased_ged_from(pairs).mean()))
        usual.append(float(ged_from(pairs).ged.mean()))
    assert np.allclose(means, 0, atol=0.01)
    assert usual[0] > usual[1] + 0.05


def test_what_pairs_cannot_tell_is_not_a_number() -> None:
    maps = reference.random_maps(2, (1, 2, 4, 4), seed=5)
    assert unbiased_ged_from(PairwiseOverlap.from_labels(maps, maps[:, :1], 2)).isnan()


def test_single_annotator_has_no_diversity() -> None:
    maps = reference.random_maps(2, (1, 3, 4, 4), seed=5)
    pairs = PairwiseOverlap.from_labels(maps[:, :1], maps[:, 1:], 2)
    across, within = (1 - pairs.label_sample).mean(), 1 - pairs.sample_sample[0, 0, 1]
    assert float(unbiased_ged_from(pairs)) == pytest.approx(float(2 * across - within))
