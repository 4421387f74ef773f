from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from metrics import PairwiseOverlap, ged, ged_from, hm_iou, hm_iou_from, max_dice_matching
from tests.metrics import reference

GOLDEN = Path(__file__).parents[1] / "golden"
seeds = st.integers(0, 2**32 - 1)
quick = settings(max_examples=25, deadline=None)


@st.composite
def label_sets(draw):
    """Labels, samples and the number of classes of a small batch; some maps lack some classes."""
    classes, seed = draw(st.integers(2, 4)), draw(seeds)
    batch, annotators, n = draw(st.integers(1, 3)), draw(st.integers(1, 4)), draw(st.integers(1, 5))
    labels = reference.random_maps(classes, (batch, annotators, 4, 3), seed)
    return labels, reference.random_maps(classes, (batch, n, 4, 3), seed + 1), classes


@pytest.mark.parametrize("name", ["binary", "multiclass"])
def test_golden_numbers(name):
    golden = np.load(GOLDEN / f"metrics_{name}.npz")
    pairs = PairwiseOverlap.from_labels(
        *(torch.from_numpy(golden[k]) for k in ("labels", "samples")), int(golden["num_classes"])
    )
    for key, value in {**ged_from(pairs)._asdict(), "hm_iou": hm_iou_from(pairs)}.items():
        np.testing.assert_allclose(value.numpy(), golden[key], atol=1e-6, err_msg=key)


@pytest.mark.parametrize("num_classes", [2, 4])
@pytest.mark.parametrize(("annotators", "n"), [(1, 1), (2, 3), (4, 2), (3, 6)])
def test_agrees_with_loops(num_classes, annotators, n):
    labels = reference.random_maps(num_classes, (2, annotators, 5, 4), seed=3)
    samples = reference.random_maps(num_classes, (2, n, 5, 4), seed=4)
    images = [(a.numpy(), s.numpy(), num_classes) for a, s in zip(labels, samples, strict=True)]
    energy = ged(labels, samples, num_classes)
    np.testing.assert_allclose(energy.ged, [reference.ged(*image) for image in images], atol=1e-12)
    matched = hm_iou(labels, samples, num_classes)
    np.testing.assert_allclose(matched, [reference.best_matching(*image) for image in images], atol=1e-12)
    expected = [reference.best_matching(*image, overlap=reference.dice) for image in images]
    np.testing.assert_allclose(max_dice_matching(labels, samples, num_classes), expected, atol=1e-12)


def test_empty_images():
    empty, full = torch.zeros(1, 4, 3, 3, dtype=torch.uint8), torch.ones(1, 4, 3, 3, dtype=torch.uint8)
    assert (ged(empty, empty, 2).ged.item(), hm_iou(empty, empty, 2).item()) == (0, 1)
    assert (ged(empty, full, 2).ged.item(), hm_iou(empty, full, 2).item()) == (2, 0)


def test_first_samples_are_the_samples_drawn_first():
    labels, samples = reference.random_maps(3, (2, 4, 6, 6), 7), reference.random_maps(3, (2, 8, 6, 6), 8)
    pairs = PairwiseOverlap.from_labels(labels, samples, 3)
    for n in (1, 4, 8):
        assert torch.equal(ged_from(pairs.first(n)).ged, ged(labels, samples[:, :n], 3).ged)
        assert torch.equal(hm_iou_from(pairs.first(n)), hm_iou(labels, samples[:, :n], 3))
    with pytest.raises(ValueError, match="first 16 samples of 8"):
        pairs.first(16)


@pytest.mark.parametrize("filler", [0, 1, 255])
def test_absent_annotators_do_not_count(filler):
    labels = reference.random_maps(3, (2, 4, 6, 6), 9).to(torch.uint8)
    samples = reference.random_maps(3, (2, 6, 6, 6), 10).to(torch.uint8)
    present = torch.tensor([[True, True, True, True], [False, True, False, True]])
    filled = torch.where(present[:, :, None, None], labels, torch.tensor(filler, dtype=torch.uint8))
    masked = ged(filled, samples, 3, present)
    alone = labels[1:, [1, 3]]
    assert torch.allclose(masked.ged[:1], ged(labels[:1], samples[:1], 3).ged)
    for value, expected in zip(masked, ged(alone, samples[1:], 3), strict=True):
        assert torch.allclose(value[1:], expected)
    for metric in (hm_iou, max_dice_matching):
        assert torch.allclose(metric(filled, samples, 3, present)[1:], metric(alone, samples[1:], 3))


def test_refuses_unusable_masks():
    maps = torch.zeros(2, 3, 2, 2, dtype=torch.uint8)
    with pytest.raises(ValueError, match="image 1 of the batch has no annotator"):
        ged(maps, maps, 2, torch.tensor([[True, True, True], [False, False, False]]))
    with pytest.raises(ValueError, match=r"expected torch.bool \(2, 3\)"):
        ged(maps, maps, 2, torch.ones(2, 4, dtype=torch.bool))
    with pytest.raises(ValueError, match="samples holds classes 2 to 2"):
        ged(maps, maps + 2, 2)


@quick
@given(label_sets())
def test_ged_is_symmetric_and_not_negative(sets):
    labels, samples, classes = sets
    forth, back = ged(labels, samples, classes), ged(samples, labels, classes)
    assert torch.allclose(forth.ged, back.ged, atol=1e-12)
    assert torch.allclose(forth.diversity_labels, back.diversity_samples, atol=1e-12)
    assert (forth.ged >= -1e-12).all()


@quick
@given(label_sets())
def test_the_annotators_themselves_are_perfect_samples(sets):
    labels, _, classes = sets
    twice = torch.cat([labels, labels], 1)
    assert torch.allclose(ged(labels, twice, classes).ged, torch.zeros(len(labels), dtype=torch.float64), atol=1e-12)
    assert torch.allclose(hm_iou(labels, twice, classes), torch.ones(len(labels), dtype=torch.float64), atol=1e-12)
