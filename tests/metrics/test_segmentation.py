import pytest
import torch

from metrics import confusion_matrix, iou_per_class, mean_iou
from tests.metrics import reference


@pytest.mark.parametrize("ignore_index", [None, 2, 255])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64])
def test_agrees_with_loops(ignore_index, dtype):
    target, prediction = (reference.random_maps(4, (3, 5, 6, 7), seed).flatten(0, 1).to(dtype) for seed in (1, 2))
    if ignore_index == 255:
        target[0] = 255
    expected = torch.zeros(4, 4, dtype=torch.int64)
    for true, predicted in zip(target.flatten().tolist(), prediction.flatten().tolist(), strict=True):
        if true != ignore_index:
            expected[true, predicted] += 1
    assert torch.equal(confusion_matrix(target, prediction, 4, ignore_index), expected)


def test_iou_of_a_perfect_and_of_an_absent_class():
    target = torch.tensor([[[0, 0, 1, 1]]])
    confusion = confusion_matrix(target, target, 3)
    assert iou_per_class(confusion)[:2].tolist() == [1, 1]
    assert iou_per_class(confusion)[2].isnan()
    assert mean_iou(confusion).item() == 1


def test_a_class_only_predicted_counts_as_missed():
    confusion = confusion_matrix(torch.tensor([[[0, 0]]]), torch.tensor([[[0, 1]]]), 2)
    assert iou_per_class(confusion).tolist() == [0.5, 0]


def test_refuses_classes_out_of_range():
    zeros = torch.zeros(1, 2, 2, dtype=torch.int64)
    with pytest.raises(ValueError, match="target holds class 255: expected 0 to 18"):
        confusion_matrix(zeros + 255, zeros, 19)
    with pytest.raises(ValueError, match="prediction holds class 19"):
        confusion_matrix(zeros, zeros + 19, 19, ignore_index=255)
    with pytest.raises(ValueError, match="one shape"):
        confusion_matrix(zeros, zeros[:, :1], 19)
