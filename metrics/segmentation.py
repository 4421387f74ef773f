"""Mean IoU over a dataset, from one confusion matrix."""

import torch
from torch import Tensor


def confusion_matrix(target: Tensor, prediction: Tensor, num_classes: int, ignore_index: int | None = None) -> Tensor:
    """Count the pixels of each pair (true class, predicted class). Add the matrices of all batches for `mean_iou`.

    Args:
        target: true classes, integer in [0, num_classes) or `ignore_index`, any shape, usually B x H x W.
        prediction: predicted classes, integer in [0, num_classes), the same shape.
        num_classes: number of classes, void not counted.
        ignore_index: target class of void pixels, which are not counted; inside or outside [0, num_classes).

    Returns:
        int64, C x C, rows are true classes and columns predicted ones.

    >>> target, prediction = torch.tensor([[[0, 0, 1, 255]]]), torch.tensor([[[0, 1, 1, 0]]])
    >>> confusion_matrix(target, prediction, num_classes=2, ignore_index=255)
    tensor([[1, 1],
            [0, 1]])
    """
    if target.shape != prediction.shape:
        raise ValueError(f"target {tuple(target.shape)} and prediction {tuple(prediction.shape)} must have one shape")
    true, predicted = target.flatten().long(), prediction.flatten().long()
    if ignore_index is not None:
        counted = true != ignore_index
        true, predicted = true[counted], predicted[counted]
    for name, values in (("target", true), ("prediction", predicted)):
        outside = values[(values < 0) | (values >= num_classes)]
        if outside.numel():
            raise ValueError(
                f"{name} holds class {int(outside[0])}: expected 0 to {num_classes - 1}"
                f" (in target also ignore_index={ignore_index})"
            )
    return torch.bincount(true * num_classes + predicted, minlength=num_classes**2).view(num_classes, num_classes)


def iou_per_class(confusion: Tensor) -> Tensor:
    """IoU of each class, TP / (TP + FP + FN), of one or more matrices of `confusion_matrix` (... x C x C).

    Returns:
        IoU in [0, 1], float64, (...) x C; NaN for a class that is neither in the targets nor in the predictions.

    >>> iou_per_class(torch.tensor([[1, 1, 0], [0, 1, 0], [0, 0, 0]]))
    tensor([0.5000, 0.5000,    nan], dtype=torch.float64)
    """
    hits = confusion.diagonal(dim1=-2, dim2=-1).double()
    return hits / (confusion.sum(-2) + confusion.sum(-1) - hits)


def mean_iou(confusion: Tensor) -> Tensor:
    """Mean of `iou_per_class` over the classes that occur, as in the Cityscapes benchmark: float64, one per matrix.

    >>> mean_iou(torch.tensor([[1, 1, 0], [0, 1, 0], [0, 0, 0]]))
    tensor(0.5000, dtype=torch.float64)
    """
    return iou_per_class(confusion).nanmean(-1)
