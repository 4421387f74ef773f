"""The weight of each class in the loss."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from tqdm import tqdm

from datasets.contract import AnnotatedDataset
from datasets.loading import evaluation_batches
from utils.errors import UserError

Choice = Sequence[float] | Literal["uniform", "weighted"] | None


def class_weights(choice: Choice, dataset: AnnotatedDataset) -> Tensor | None:
    """The weight of each class in training on this split: float32, C, or None if all are weighted equally.

    `choice` is the weights themselves; "uniform": 1 for all; or "weighted": 1 / log(1.02 + frequency), the weights of
    ENet (Paszke et al., 2016, section 5.2). "uniform" and "weighted" give `dataset.void_class`, if any, weight 0.
    Raises UserError for a number of weights other than C, and if all of them are 0.
    """
    if choice is None:
        return None
    if not isinstance(choice, str):
        if len(choice) != dataset.num_classes:
            raise UserError(
                f"class_weights has {len(choice)} values; {type(dataset).__module__} has {dataset.num_classes} classes"
            )
        if not any(choice):
            raise UserError("class_weights are all 0; expected a positive one")
        return torch.tensor(choice)
    evaluated = torch.ones(dataset.num_classes)
    void_class = getattr(dataset, "void_class", None)
    if void_class is not None:
        evaluated[void_class] = 0
    if choice == "uniform":
        return evaluated
    counts = dataset.class_counts() if hasattr(dataset, "class_counts") else _count_classes(dataset)
    counts = counts * evaluated.long()
    return evaluated / torch.log(1.02 + counts / counts.sum())


def _count_classes(dataset: AnnotatedDataset) -> Tensor:
    """Pixels of each class in all label maps: int64, C."""
    counts = torch.zeros(dataset.num_classes, dtype=torch.int64)
    batches = evaluation_batches(dataset, list(range(len(dataset))), batch_size=16, workers=0)
    for batch in tqdm(batches, desc="counting classes", unit="batch", leave=False):
        counts += batch.labels[batch.present].flatten().bincount(minlength=dataset.num_classes)
    return counts
