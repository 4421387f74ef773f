"""Images with void pixels are scored as if they did not have these pixels."""

import numpy as np
import pytest
import torch
from torch import Tensor

from metrics import (
    brier_score,
    calibration_bins,
    dice_of_mean,
    ged,
    hm_iou,
    iou_of_mean,
    label_frequencies,
    max_dice_matching,
    normalised_cross_correlation,
)
from tests.metrics import reference

CLASSES, PRESENT = 3, torch.tensor([[True, True, True], [True, False, True]])


def maps_with_void(void: int = 255, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Labels (2 x 3 x 5 x 6), a fifth of them void, and samples (2 x 6 x 5 x 6)."""
    labels = reference.random_maps(CLASSES, (2, 3, 5, 6), seed)
    is_void = torch.rand(labels.shape, generator=torch.Generator().manual_seed(seed)) < 0.2
    return labels.masked_fill(is_void, void), reference.random_maps(CLASSES, (2, 6, 5, 6), seed + 1)


def labelled_pixels(labels: Tensor, samples: Tensor) -> list[tuple[np.ndarray, np.ndarray, int]]:
    """For each image, labels of the annotators present, samples, and number of classes, at the pixels that count."""
    images = []
    for maps, drawn, present in zip(labels, samples, PRESENT, strict=True):
        kept = (maps[present] != 255).all(0)
        images.append((maps[present][:, kept].numpy(), drawn[:, kept].numpy(), CLASSES))
    return images


@pytest.mark.parametrize(
    ("metric", "by_loops"),
    [
        (lambda *maps: ged(*maps).ged, reference.ged),
        (hm_iou, reference.best_matching),
        (max_dice_matching, lambda *image: reference.best_matching(*image, overlap=reference.dice)),
        (normalised_cross_correlation, reference.ncc),
        (dice_of_mean, lambda *image: reference.overlap_of_votes(*image, overlap=reference.dice)),
        (iou_of_mean, lambda *image: reference.overlap_of_votes(*image, overlap=reference.iou)),
    ],
    ids=["ged", "hm_iou", "max_dice_matching", "ncc", "dice_of_mean", "iou_of_mean"],
)
@pytest.mark.parametrize("void", [255, -1, CLASSES])
def test_metrics_agree_with_loops_over_the_pixels_that_everyone_labelled(metric, by_loops, void):
    expected = [by_loops(*image) for image in labelled_pixels(*maps_with_void())]
    np.testing.assert_allclose(
        metric(*maps_with_void(void), CLASSES, PRESENT, void), expected, rtol=1e-6
    )  # float32 frequencies


def test_calibration_agrees_with_the_pixels_that_everyone_labelled():
    labels, samples = maps_with_void()
    frequencies, probabilities = label_frequencies(labels, CLASSES, PRESENT, 255), label_frequencies(samples, CLASSES)
    for row, (kept_labels, kept_samples, _) in enumerate(labelled_pixels(labels, samples)):
        f, p = (
            label_frequencies(torch.from_numpy(kept)[None, :, None], CLASSES) for kept in (kept_labels, kept_samples)
        )
        assert frequencies[row].sum(0).sum() == f.shape[-1]
        torch.testing.assert_close(brier_score(probabilities, frequencies)[row], brier_score(p, f)[0])
        bins = calibration_bins(probabilities[row, None], frequencies[row, None])
        torch.testing.assert_close(bins, calibration_bins(p, f))


def test_without_void_pixels_nothing_changes():
    labels, samples = reference.random_maps(3, (2, 3, 5, 6), 1), reference.random_maps(3, (2, 4, 5, 6), 2)
    for metric in (ged, hm_iou, max_dice_matching, dice_of_mean, iou_of_mean, normalised_cross_correlation):
        value, expected = metric(labels, samples, 3, ignore_index=255), metric(labels, samples, 3)
        assert all(map(torch.equal, value, expected))


@pytest.mark.parametrize(
    ("ignore_index", "labels", "message"),
    [
        (2, [0, 1], "ignore_index is 2: expected a label outside 0 to 2"),
        (255, [255, 255], "image 1 of the batch has no pixel that all of its annotators labelled"),
        (255, [0, 254], "labels holds classes 0 to 254: expected 0 to 2, or ignore_index"),
    ],
)
def test_refuses_what_cannot_be_scored(ignore_index, labels, message):
    samples = torch.zeros(2, 1, 1, 2, dtype=torch.uint8)
    with pytest.raises(ValueError, match=message):
        ged(torch.tensor([[[[0, 0]]], [[labels]]]), samples, 3, ignore_index=ignore_index)
