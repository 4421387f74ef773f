"""The weight of each class in the loss."""

from collections.abc import Sequence
from typing import Literal, Protocol, runtime_checkable

import torch
from torch import Tensor
from tqdm import tqdm

from datasets.loading import AnnotatedDataset, evaluation_batches
from utils.errors import UserError

Choice = Sequence[float] | Literal["uniform", "weighted"] | None

_BATCH = 16


@runtime_checkable
class CountsClasses(Protocol):
    """A data set that knows a quicker way to its class counts than to go through all of its items."""

    def class_counts(self) -> Tensor:
        """Pixels of each class in all label maps: int64, C."""


def class_weights(choice: Choice, dataset: AnnotatedDataset) -> Tensor | None:
    """The weight of each class: float32, C, or None where all count the same.

    Args:
        choice: the weights themselves; "uniform": 1 for all; "weighted": 1 / log(1.02 + frequency), the weights of ENet
            (Paszke et al., 2016, section 5.2). With either name `dataset.void_class`, where there is one, counts 0.
        dataset: the training split.

    Raises:
        UserError: for a number of weights other than C.
    """
    if choice is None:
        return None
    if not isinstance(choice, str):
        if len(choice) != dataset.num_classes:
            raise UserError(
                f"class_weights has {len(choice)} values; {type(dataset).__module__} has {dataset.num_classes} classes"
            )
        return torch.tensor(choice)
    void_class: int | None = getattr(dataset, "void_class", None)
    if choice == "uniform":
        weights = torch.ones(dataset.num_classes)
    else:
        counts = dataset.class_counts() if isinstance(dataset, CountsClasses) else count_classes(dataset)
        if void_class is not None:
            counts[void_class] = 0
        weights = 1 / torch.log(1.02 + counts / counts.sum())
    if void_class is not None:
        weights[void_class] = 0
    return weights


def count_classes(dataset: AnnotatedDataset) -> Tensor:
    """Pixels of each class in all label maps of a data set: int64, C."""
    counts = torch.zeros(dataset.num_classes, dtype=torch.int64)
    batches = evaluation_batches(dataset, list(range(len(dataset))), _BATCH, workers=0)
    for batch in tqdm(batches, desc="counting classes", unit="batch", leave=False):
        counts += batch.labels[batch.present].flatten().bincount(minlength=dataset.num_classes)
    return counts
