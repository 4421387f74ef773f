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
from torch.utils.data import Sampler

from datasets.batch_loader import BatchDataset, BatchLoader, make_loader
from datasets.checks import check_item
from datasets.normalisation import Normalisation
from datasets.transforms import Augmentation
from utils.errors import UserError
from utils.noise import derive_key, seed_from, uniform

SPLITS = ("train", "val", "test")
WHOLE = slice(None)


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

    def label_probabilities(self, index: int) -> Tensor: ...


class TrainingBatch(NamedTuple):
    """Images (B x channels x H x W), a label map of each (B x H x W), and the indices and epochs they stand for (B)."""

    images: Tensor
    labels: Tensor
    indices: Tensor
    epochs: Tensor


class EvaluationBatch(NamedTuple):
    """Images (B x channels x H x W), all label maps (B x A x H x W), which annotators are present (B x A), and more.

    `original_labels` has the label maps of each image at their original size (A x H' x W'), where the data set gives
    them, and is empty otherwise.
    """

    images: Tensor
    labels: Tensor
    present: Tensor
    indices: Tensor
    names: list[str]
    groups: list[int]
    original_labels: list[Tensor]


@runtime_checkable
class TrainingImages(Protocol):
    """Images that are drawn in batches, wherever they are kept."""

    device: torch.device
    normalisation: Normalisation

    def __len__(self) -> int: ...

    def draw(self, indices: Tensor, uniforms: Tensor) -> tuple[Tensor, Tensor]:
        """Images of those indices (B) and of each the label map of one annotator, chosen by a uniform number (B)."""


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


class UncachedImages:
    """A data set as it is, each item read when it is wanted."""

    device = torch.device("cpu")

    def __init__(self, dataset: AnnotatedDataset) -> None:
        self.dataset, self.normalisation = dataset, Normalisation.from_dataset(dataset)

    def __len__(self) -> int:
        return len(self.dataset)

    def draw(self, indices: Tensor, uniforms: Tensor) -> tuple[Tensor, Tensor]:
        """See `TrainingImages`."""
        items = [_checked_item(self.dataset, index) for index in indices.tolist()]
        maps = [item["labels"] for item in items]
        chosen = [map_[int(u * len(map_))].to(torch.uint8) for map_, u in zip(maps, uniforms.tolist(), strict=True)]
        return _stacked([item["image"] for item in items]), torch.stack(chosen)


def training_batches(
    images: AnnotatedDataset | TrainingImages,
    pipeline: list[str],
    batch_size: int,
    first_step: int,
    last_step: int,
    seed: int,
    workers: int,
    part: slice = WHOLE,
) -> BatchLoader[TrainingBatch]:
    """The batches of the optimiser steps `first_step` .. `last_step` - 1, the same whatever came before.

    Every epoch visits the images in an order of its own; steps run on across the end of an epoch. Order, annotator and
    augmentation are functions of (seed, epoch, index), and not of which `part` of every batch is wanted. What is kept
    on a CUDA device is drawn there, without workers.
    """
    steps = _Steps(len(images), batch_size, first_step, last_step, seed, part)
    if not isinstance(images, TrainingImages):
        images = UncachedImages(images)
    augmentation = Augmentation(pipeline, images.normalisation)
    on_cpu = images.device.type == "cpu"
    return make_loader(_TrainingView(images, augmentation, seed), steps, workers if on_cpu else 0, on_cpu)


def evaluation_batches(
    dataset: AnnotatedDataset, indices: list[int], batch_size: int, workers: int, part: slice = WHOLE
) -> BatchLoader[EvaluationBatch]:
    """The images of `indices` in that order, with all of their label maps; of the batches, those of `part`."""
    chunks = [indices[start : start + batch_size] for start in range(0, len(indices), batch_size)]
    return make_loader(_EvaluationView(dataset), chunks[part], workers, pin_memory=True)


def evenly_spaced_indices(length: int, limit: int | None) -> list[int]:
    """At most `limit` indices, spread evenly over 0 .. length - 1: a fixed subset that does not favour one end."""
    if limit is None or limit >= length:
        return list(range(length))
    return [int((k + 0.5) * length / limit) for k in range(limit)]


class _TrainingView(BatchDataset):
    """BatchLoader by (epoch, index): each image with one annotator's label map, augmented."""

    def __init__(self, images: TrainingImages, augmentation: Augmentation, seed: int) -> None:
        self.images, self.augmentation, self.seed = images, augmentation, seed

    def batch(self, wanted: list[tuple[int, int]]) -> TrainingBatch:
        epochs, indices = torch.tensor(wanted).unbind(1)
        keys = derive_key("augmentation", self.seed, epochs, indices)
        images, labels = self.images.draw(indices, uniform(derive_key(keys, "annotator"), (1,))[:, 0])
        images, labels = self.augmentation(images, labels, keys.to(images.device))
        return TrainingBatch(images, labels, indices, epochs)


class _Steps(Sampler[list[tuple[int, int]]]):
    """The (epoch, index) pairs of every optimiser step, counted from the start of training."""

    def __init__(self, length: int, batch_size: int, first_step: int, last_step: int, seed: int, part: slice) -> None:
        self.length, self.batch_size, self.seed, self.part = length, batch_size, seed, part
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
            yield pairs[self.part]


class _EvaluationView(BatchDataset):
    def __init__(self, dataset: AnnotatedDataset) -> None:
        self.dataset = dataset

    def batch(self, wanted: list[int]) -> EvaluationBatch:
        items = [_checked_item(self.dataset, index) for index in wanted]
        images = _stacked([item["image"] for item in items])
        most = max(len(item["labels"]) for item in items)
        labels = torch.zeros((len(items), most, *images.shape[-2:]), dtype=torch.uint8)
        present = torch.zeros((len(items), most), dtype=torch.bool)
        for row, item in enumerate(items):
            labels[row, : len(item["labels"])] = item["labels"]
            present[row, : len(item["labels"])] = True
        return EvaluationBatch(
            images,
            labels,
            present,
            torch.tensor(wanted),
            [item["name"] for item in items],
            [int(item.get("group", index)) for index, item in zip(wanted, items, strict=True)],
            [item["original_labels"] for item in items if "original_labels" in item],
        )


def _checked_item(dataset: AnnotatedDataset, index: int) -> dict[str, Any]:
    item = dataset[index]
    check_item(item, dataset, index)
    return item


def _stacked(images: list[Tensor]) -> Tensor:
    shapes = {tuple(image.shape) for image in images}
    if len(shapes) > 1:
        raise UserError(f"images of one batch have different sizes: {', '.join(map(str, sorted(shapes)))}")
    return torch.stack(images)


def _import_module(name: str) -> Any:
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # a module of the user's own, beside the settings
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and f"{name}.".startswith(f"{error.name}."):
            raise UserError(
                f"dataset_file: there is no module {name}; take one of datasets.synthetic, datasets.lidc, "
                f"or the dotted name of a module of yours"
            ) from error
        raise UserError(f"dataset_file: {name} needs the package {error.name}, which is not installed") from error
    except (TypeError, ValueError) as error:
        raise UserError(f"dataset_file: {name!r} is not the dotted name of a module") from error
