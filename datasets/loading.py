"""Loading the dataset that the settings name, and drawing batches from it for training and evaluation."""

import signal
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal, NamedTuple, Protocol, TypeVar, runtime_checkable

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from datasets.contract import AnnotatedDataset, check_item
from datasets.normalisation import Normalisation
from datasets.transforms import Augmentation
from utils.errors import UserError
from utils.modules import call, import_module
from utils.noise import derive_key, seed_from, uniform

Batch = TypeVar("Batch")


class BatchLoader(DataLoader[Batch]):
    """A data loader that raises a `UserError` of a worker process with its message unchanged."""

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]  # wider than PyTorch's private class
        for batch in super().__iter__():
            if isinstance(batch, UserError):
                raise batch
            yield batch


class BatchDataset(Dataset[Any]):
    """Maps the keys of a batch to the batch. Errors are returned, since PyTorch would add a worker's traceback."""

    def __getitem__(self, keys: Any) -> Any:
        try:
            return self.batch(keys)
        except UserError as error:
            return error
        except OSError as error:
            return UserError(f"the data cannot be read: {error}")

    def batch(self, keys: Any) -> Any:
        """The batch of these keys."""
        raise NotImplementedError


def make_loader(dataset: BatchDataset, keys: Iterable[Any], workers: int, pin_memory: bool) -> BatchLoader[Any]:
    """Load a batch for every element of `keys`, in `workers` processes, or in this one if there are none."""
    pin_memory = pin_memory and torch.cuda.is_available()
    return BatchLoader(
        dataset,
        batch_size=None,
        sampler=keys,
        num_workers=workers,
        pin_memory=pin_memory,
        worker_init_fn=_ignore_signals,
    )


def _ignore_signals(worker: int) -> None:
    """Leave signals, which often reach all processes of a group, to the process that saves and ends its workers."""
    for name in ("SIGTERM", "SIGINT", "SIGUSR1"):
        if hasattr(signal, name):  # Windows has no USR1
            signal.signal(getattr(signal, name), signal.SIG_IGN)


DATASETS = ("datasets.synthetic", "datasets.folder", "datasets.lidc", "datasets.lidc_crops", "datasets.cityscapes")


class TrainingBatch(NamedTuple):
    """Images with the label maps of all raters or of one, and which images in which epoch they are."""

    images: Tensor  # float32, B x channels x H x W
    labels: Tensor  # uint8, B x A x H x W; 0 where a rater is absent
    present: Tensor  # bool, B x A
    rater: Tensor  # int64, B; one of those present, drawn at random
    indices: Tensor  # int64, B
    epochs: Tensor  # int64, B


class EvaluationBatch(NamedTuple):
    """Images with the label maps of all annotators; A is the largest number of annotators in the batch."""

    images: Tensor  # float32, B x channels x H x W
    labels: Tensor  # uint8, B x A x H x W; 0 where an annotator is absent
    present: Tensor  # bool, B x A
    indices: Tensor  # int64, B
    names: list[str]
    groups: list[int]
    original_labels: list[Tensor]  # A x H' x W' for each image, or empty if the dataset does not have them


@runtime_checkable
class TrainingImages(Protocol):
    """Images from which training batches are drawn, on any device."""

    device: torch.device
    normalisation: Normalisation

    def __len__(self) -> int: ...

    def draw(self, indices: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Images, label maps and present raters of these indices (B); see `TrainingBatch`. `present` is on the CPU."""


def load_dataset(dataset_file: str, split: str, dataset_params: Mapping[str, Any]) -> AnnotatedDataset:
    """Load a split of the dataset whose module is `dataset_file`.

    Raises UserError for a module that does not exist or lacks `get_dataset`, for arguments that it does not accept, for
    problems with the data that the module reports, for a split without images, and for fewer than two classes without
    the void class.
    """
    module = import_module(dataset_file, "dataset_file", DATASETS)
    dataset: AnnotatedDataset = call(module, "get_dataset", "dataset_params", split, **dataset_params)
    if len(dataset) == 0:
        raise UserError(f"{getattr(dataset, 'source', dataset_file)}: split {split!r} holds no images")
    if getattr(dataset, "void_class", None) is not None and dataset.num_classes < 3:
        raise UserError(
            f"{getattr(dataset, 'source', dataset_file)}: one of {dataset.num_classes} classes is void, which is not "
            "evaluated; expected two others"
        )
    return dataset


class UncachedImages:
    """`TrainingImages` that reads every item from the dataset when it is drawn."""

    device = torch.device("cpu")

    def __init__(self, dataset: AnnotatedDataset) -> None:
        self.dataset, self.normalisation = dataset, Normalisation.from_dataset(dataset)

    def __len__(self) -> int:
        return len(self.dataset)

    def draw(self, indices: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """See `TrainingImages`."""
        items = _read_items(self.dataset, indices.tolist())
        return _stack_images(items), *_pad_labels(items)


def training_batches(
    images: AnnotatedDataset | TrainingImages,
    pipeline: list[str],
    batch_size: int,
    first_step: int,
    last_step: int,
    seed: int,
    workers: int,
    part: slice = slice(None),
    raters: Literal["all", "one"] = "one",
) -> BatchLoader[TrainingBatch]:
    """The batches of the optimiser steps `first_step` .. `last_step` - 1, whichever step training started from.

    Every epoch visits the images in a different order; a batch may extend into the next epoch. Order, rater and
    augmentation are functions of (seed, epoch, index) and do not depend on `part`, the share of every batch that is
    loaded. Images on a CUDA device are drawn there, without workers. With `raters` "one", batches contain only the
    label maps of the rater that was drawn.
    """
    steps = _Steps(len(images), batch_size, first_step, last_step, seed, part)
    if not isinstance(images, TrainingImages):
        images = UncachedImages(images)
    augmentation = Augmentation(pipeline, images.normalisation)
    on_cpu = images.device.type == "cpu"
    return make_loader(_TrainingBatches(images, augmentation, seed, raters), steps, workers if on_cpu else 0, on_cpu)


def evaluation_batches(
    dataset: AnnotatedDataset, indices: list[int], batch_size: int, workers: int, part: slice = slice(None)
) -> BatchLoader[EvaluationBatch]:
    """The images of `indices`, in this order, with all of their label maps; `part` selects from the batches."""
    batches = [indices[start : start + batch_size] for start in range(0, len(indices), batch_size)]
    return make_loader(_EvaluationBatches(dataset), batches[part], workers, pin_memory=True)


def evenly_spaced_indices(length: int, limit: int | None) -> list[int]:
    """At most `limit` indices, evenly spaced over 0 .. length - 1: a subset that does not depend on a seed."""
    if limit is None or limit >= length:
        return list(range(length))
    return [int((k + 0.5) * length / limit) for k in range(limit)]


class _TrainingBatches(BatchDataset):
    """Maps (epoch, index) pairs to images with label maps, augmented."""

    def __init__(self, images: TrainingImages, augmentation: Augmentation, seed: int, raters: str) -> None:
        self.images, self.augmentation, self.seed, self.raters = images, augmentation, seed, raters

    def batch(self, keys: list[tuple[int, int]]) -> TrainingBatch:
        epochs, indices = torch.tensor(keys).unbind(1)
        noise = derive_key("augmentation", self.seed, epochs, indices)
        images, labels, present = self.images.draw(indices)
        rater = (uniform(derive_key(noise, "annotator"), (1,))[:, 0].double() * present.sum(1)).long()
        if self.raters == "one":
            labels = labels[torch.arange(len(labels)), rater.to(labels.device), None]
            present, rater = present[:, :1], torch.zeros_like(rater)
        images, labels = self.augmentation(images, labels, noise.to(images.device))
        return TrainingBatch(images, labels, present, rater, indices, epochs)


class _Steps(Sampler[list[tuple[int, int]]]):
    """The (epoch, index) pairs of every optimiser step, which are counted from the start of training."""

    def __init__(self, length: int, batch_size: int, first_step: int, last_step: int, seed: int, part: slice) -> None:
        self.length, self.batch_size, self.seed, self.part = length, batch_size, seed, part
        self.steps = range(first_step, last_step)

    def __len__(self) -> int:
        return len(self.steps)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        epoch, order = -1, np.empty(0, dtype=np.int64)
        for step in self.steps:
            pairs = []
            for position in range(step * self.batch_size, (step + 1) * self.batch_size):
                if position // self.length != epoch:
                    epoch = position // self.length
                    order = np.random.default_rng(seed_from("order", self.seed, epoch)).permutation(self.length)
                pairs.append((epoch, int(order[position % self.length])))
            yield pairs[self.part]


class _EvaluationBatches(BatchDataset):
    """Maps indices to images with all of their label maps."""

    def __init__(self, dataset: AnnotatedDataset) -> None:
        self.dataset = dataset

    def batch(self, keys: list[int]) -> EvaluationBatch:
        items = _read_items(self.dataset, keys)
        images = _stack_images(items)
        return EvaluationBatch(
            images,
            *_pad_labels(items),
            torch.tensor(keys),
            [item["name"] for item in items],
            [int(item.get("group", index)) for index, item in zip(keys, items, strict=True)],
            [item["original_labels"] for item in items if "original_labels" in item],
        )


def _read_items(dataset: AnnotatedDataset, indices: list[int]) -> list[dict[str, Any]]:
    items = [dataset[index] for index in indices]
    for item, index in zip(items, indices, strict=True):
        check_item(item, dataset, index)
    return items


def _pad_labels(items: list[dict[str, Any]]) -> tuple[Tensor, Tensor]:
    """The label maps of all raters, B x A x H x W, and which raters are present, B x A."""
    counts = torch.tensor([len(item["labels"]) for item in items])
    present = torch.arange(int(counts.max())) < counts[:, None]
    labels = torch.zeros((*present.shape, *items[0]["labels"].shape[1:]), dtype=torch.uint8)
    labels[present] = torch.cat([item["labels"] for item in items]).to(torch.uint8)
    return labels, present


def _stack_images(items: list[dict[str, Any]]) -> Tensor:
    shapes = {tuple(item["image"].shape) for item in items}
    if len(shapes) > 1:
        raise UserError(f"images of one batch have different sizes: {', '.join(map(str, sorted(shapes)))}")
    return torch.stack([item["image"] for item in items])
