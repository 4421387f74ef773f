import numpy as np
import pytest
import torch

from metrics import dice_of_mean, iou_of_mean, label_frequencies
from tests.metrics import reference


def test_frequencies_agree_with_one_hot_mean():
    labels = reference.random_maps(4, (3, 5, 6, 7))
    expected = torch.nn.functional.one_hot(labels, 4).float().mean(1).permute(0, 3, 1, 2)
    torch.testing.assert_close(label_frequencies(labels, 4), expected)


def test_frequencies_without_absent_annotators():
    labels = reference.random_maps(3, (1, 3, 4, 4)).to(torch.uint8)
    present = torch.tensor([[True, False, True]])
    filled = torch.where(present[:, :, None, None], labels, torch.tensor(255, dtype=torch.uint8))
    assert torch.equal(label_frequencies(filled, 3, present), label_frequencies(labels[:, [0, 2]], 3))


@pytest.mark.parametrize(("metric", "single"), [(dice_of_mean, reference.dice), (iou_of_mean, reference.iou)])
def test_overlap_of_majority_votes(metric, single):
    labels, samples = reference.random_maps(4, (3, 5, 6, 7), 1), reference.random_maps(4, (3, 8, 6, 7), 2)
    images = zip(labels.numpy(), samples.numpy(), strict=True)
    expected = [reference.overlap_of_votes(a, s, 4, single) for a, s in images]
    np.testing.assert_allclose(metric(labels, samples, 4), expected)


def test_half_of_the_votes_leave_background():
    split = torch.tensor([[[[1, 1]], [[0, 1]]]])
    assert iou_of_mean(split, torch.tensor([[[[0, 1]]]]), 2).item() == 1
