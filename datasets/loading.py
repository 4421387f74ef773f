"""Finding the data set that the settings name, and turning it into batches."""

import importlib
import inspect
import os
import sys
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from datasets.transforms import Augmentation
from utils.errors import UserError
from utils.noise import seed_from

SPLITS = ("train", "val", "test")


class AnnotatedDataset(Protocol):
    """What a data set offers; see the package's docstring."""

    num_classes: int
    image_channels: int

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> dict[str, Any]: ...


@runtime_checkable
class KnownDistribution(Protocol):
    """A data set that can draw further label maps of its images from their true distribution."""

    def draw_labels(self, index: int, num_samples: int, seed: int = 0) -> Tensor: ...


class TrainingBatch(NamedTuple):
    """Images (B x channels x H x W), a label map of each (B x H x W), and the indices and epochs they stand for (B)."""

    images: Tensor
    labels: Tensor
    indices: Tensor
    epochs: Tensor


class EvaluationBatch(NamedTuple):
    """Images (B x channels x H x W), all label maps (B x A x H x W), which annotators are present (B x A), and more."""

    images: Tensor
    labels: Tensor
    present: Tensor
    indices: Tensor
    names: list[str]
    groups: list[int]


def load_dataset(dataset_file: str, split: str, dataset_params: Mapping[str, Any]) -> AnnotatedDataset:
    """The named split of the data set whose module is `dataset_file`.

    Raises:
        UserError: for a module that cannot be found or lacks `get_dataset`, for arguments that it does not take, and
            for whatever the module itself finds wrong with the data.
    """
    module = _import_module(dataset_file)
    if not hasattr(module, "get_dataset"):
        raise UserError(f"dataset_file: {dataset_file} has no function `get_dataset(split, **dataset_params)`")
    try:
        inspect.signature(module.get_dataset).bind(split, **dataset_params)
    except TypeError as error:
        takes = ", ".join(inspect.signature(module.get_dataset).parameters)
        raise UserError(f"dataset_params: {error}; {dataset_file} takes: {takes}") from error
    dataset: AnnotatedDataset = module.get_dataset(split, **dataset_params)
    if len(dataset) == 0:
        raise UserError(f"{dataset_file}: split {split!r} holds no images")
    return dataset


def training_batches(
    dataset: AnnotatedDataset,
    pipeline: list[str],
    batch_size: int,
    first_step: int,
    last_step: int,
    seed: int,
    workers: int,
) -> DataLoader[TrainingBatch]:
    """The batches of the optimiser steps `first_step` .. `last_step` - 1, the same whatever came before.

    Every epoch visits the images in an order of its own; steps run on across the end of an epoch. Order, annotator and
    augmentation are functions of (seed, epoch, index).
    """
    return DataLoader(
        _TrainingView(dataset, Augmentation(pipeline), seed),
        batch_sampler=_Steps(len(dataset), batch_size, first_step, last_step, seed),
        collate_fn=_collate_training,
        num_workers=workers,
        pin_memory=torch.cuda.is_available(),
        persistent_workers=workers > 0,
    )


def evaluation_batches(
    dataset: AnnotatedDataset, indices: list[int], batch_size: int, workers: int
) -> DataLoader[EvaluationBatch]:
    """The images of `indices` in that order, with all of their label maps."""
    return DataLoader(
        _EvaluationView(dataset, indices),
        batch_size=batch_size,
        collate_fn=_collate_evaluation,
        num_workers=workers,
        pin_memory=torch.cuda.is_available(),
    )


def spread_indices(length: int, limit: int | None) -> list[int]:
    """At most `limit` indices, spread evenly over 0 .. length - 1: a fixed subset that does not favour one end."""
    if limit is None or limit >= length:
        return list(range(length))
    return [int((k + 0.5) * length / limit) for k in range(limit)]


class _TrainingView(Dataset[Any]):
    """Items by (epoch, index): the image with one annotator's label map, augmented."""

    def __init__(self, dataset: AnnotatedDataset, augmentation: Augmentation, seed: int) -> None:
        self.dataset, self.augmentation, self.seed = dataset, augmentation, seed

    def __getitem__(self, epoch_and_index: tuple[int, int]) -> tuple[Tensor, Tensor, int, int]:
        epoch, index = epoch_and_index
        item = self.dataset[index]
        rng = np.random.default_rng([self.seed, epoch, index])
        labels = item["labels"][rng.integers(len(item["labels"]))]
        image, labels = self.augmentation(item["image"], labels, int(rng.integers(2**63)))
        return image, labels, index, epoch


class _Steps(Sampler[list[tuple[int, int]]]):
    """The (epoch, index) pairs of every optimiser step, counted from the start of training."""

    def __init__(self, length: int, batch_size: int, first_step: int, last_step: int, seed: int) -> None:
        self.length, self.batch_size, self.seed = length, batch_size, seed
        self.first_step, self.last_step = first_step, last_step

    def __len__(self) -> int:
        return self.last_step - self.first_step

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        epoch, order = -1, np.empty(0, dtype=np.int64)
        for step in range(self.first_step, self.last_step):
            pairs = []
            for position in range(step * self.batch_size, (step + 1) * self.batch_size):
                if position // self.length != epoch:
                    epoch = position // self.length
                    order = np.random.default_rng(seed_from("order", self.seed, epoch)).permutation(self.length)
                pairs.append((epoch, int(order[position % self.length])))
            yield pairs


class _EvaluationView(Dataset[Any]):
    def __init__(self, dataset: AnnotatedDataset, indices: list[int]) -> None:
        self.dataset, self.indices = dataset, indices

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, position: int) -> tuple[int, dict[str, Any]]:
        index = self.indices[position]
        return index, self.dataset[index]


def _collate_training(items: list[tuple[Tensor, Tensor, int, int]]) -> TrainingBatch:
    images, labels, indices, epochs = zip(*items, strict=True)
    return TrainingBatch(torch.stack(images), torch.stack(labels), torch.tensor(indices), torch.tensor(epochs))


def _collate_evaluation(indexed: list[tuple[int, dict[str, Any]]]) -> EvaluationBatch:
    indices, items = zip(*indexed, strict=True)
    most = max(len(item["labels"]) for item in items)
    labels = torch.zeros((len(items), most, *items[0]["labels"].shape[1:]), dtype=torch.uint8)
    present = torch.zeros((len(items), most), dtype=torch.bool)
    for row, item in enumerate(items):
        labels[row, : len(item["labels"])] = item["labels"]
        present[row, : len(item["labels"])] = True
    return EvaluationBatch(
        torch.stack([item["image"] for item in items]),
        labels,
        present,
        torch.tensor(indices),
        [item["name"] for item in items],
        [int(item.get("group", index)) for index, item in indexed],
    )


def _import_module(name: str) -> Any:
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # a module of the user's own, beside the settings
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and name.startswith(error.name):
            raise UserError(
                f"dataset_file: there is no module {name}; take one of datasets.synthetic, datasets.lidc, "
                f"or the dotted name of a module of yours"
            ) from error
        raise UserError(f"dataset_file: {name} needs the package {error.name}, which is not installed") from error
    except (TypeError, ValueError) as error:
        raise UserError(f"dataset_file: {name!r} is not the dotted name of a module") from error
