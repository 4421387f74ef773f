"""Loading a dataset by the name of its module, and batches that are functions of seed, epoch and index."""

from typing import Any

import numpy as np
import pytest
import torch

from datasets import KnownDistribution
from datasets.loading import (
    EvaluationBatch,
    TrainingBatch,
    evaluation_batches,
    evenly_spaced_indices,
    load_dataset,
    training_batches,
)
from tests.conftest import UserModule
from tests.tiny import same
from utils.errors import UserError

LENGTH = 10
PIPELINE = ["flip", "flip_vertical", "quarter_turn"]


class Numbered:
    """Images whose pixels encode their index, with index % 3 + 1 annotators."""

    num_classes = 4
    image_channels = 1

    def __len__(self) -> int:
        return LENGTH

    def __getitem__(self, index: int) -> dict[str, Any]:
        image = torch.arange(9.0).view(1, 3, 3) + 100 * index
        labels = torch.arange(index % 3 + 1, dtype=torch.uint8)[:, None, None].expand(-1, 3, 3)
        return {"image": image, "labels": labels, "name": f"number {index}"}


def steps(
    first: int, last: int, *, batch: int = 4, seed: int = 0, workers: int = 0, pipeline: list[str] = PIPELINE
) -> list[TrainingBatch]:
    return list(training_batches(Numbered(), pipeline, batch, first, last, seed, workers))


def order(batches: list[TrainingBatch]) -> list[int]:
    return torch.cat([batch.indices for batch in batches]).tolist()


def test_every_epoch_visits_every_image_in_another_order() -> None:
    visits = order(steps(0, 15, batch=4))
    epochs = [tuple(visits[start : start + LENGTH]) for start in range(0, len(visits), LENGTH)]
    assert len(epochs) == 6
    assert all(sorted(epoch) == list(range(LENGTH)) for epoch in epochs)
    assert len(set(epochs)) == 6


@pytest.mark.parametrize("batch", [4, 20])
def test_batches_extend_over_the_end_of_an_epoch(batch: int) -> None:
    epochs = torch.cat([step.epochs for step in steps(0, 20 // batch, batch=batch)]).tolist()
    assert epochs == [0] * 10 + [1] * 10


@pytest.mark.parametrize(("first", "workers"), [(1, 0), (2, 0), (3, 1), (6, 0), (9, 2), (10, 0)])
def test_batches_are_the_same_after_resuming_at_any_step_with_any_number_of_workers(first: int, workers: int) -> None:
    assert same(steps(first, 10, workers=workers), steps(0, 10)[first:])


def test_order_is_uniform_over_seeds() -> None:
    first = [order(steps(0, 1, batch=LENGTH, seed=seed, pipeline=[]))[0] for seed in range(300)]
    assert np.bincount(first, minlength=LENGTH).min() > 10


def test_every_annotator_is_drawn_and_no_other() -> None:
    batches = steps(0, 100, batch=LENGTH, pipeline=[])
    seen: dict[int, set[int]] = {index: set() for index in range(LENGTH)}
    for batch in batches:
        for index, labels in zip(batch.indices.tolist(), batch.labels, strict=True):
            seen[index].add(int(labels[0, 0, 0]))
    assert seen == {index: set(range(index % 3 + 1)) for index in range(LENGTH)}


def test_all_annotators_come_along_if_wanted_and_the_same_one_is_drawn() -> None:
    one, everyone = (
        list(training_batches(Numbered(), PIPELINE, 4, 0, 5, 0, workers=0, raters=raters)) for raters in ("one", "all")
    )
    for chosen, batch in zip(one, everyone, strict=True):
        assert torch.equal(batch.present.sum(1), batch.indices % 3 + 1)
        assert torch.equal(batch.labels[torch.arange(4), batch.rater], chosen.labels[:, 0])
        assert torch.equal(batch.images, chosen.images)
        assert chosen.present.all()
        assert not chosen.rater.any()


def test_augmentation_differs_between_epochs_and_images() -> None:
    corners: dict[int, set[float]] = {index: set() for index in range(LENGTH)}
    for batch in steps(0, 30, batch=LENGTH):
        for index, image in zip(batch.indices.tolist(), batch.images, strict=True):
            corners[index].add(float(image[0, 0, 0]) - 100 * index)
    assert all(corner == {0.0, 2.0, 6.0, 8.0} for corner in corners.values())


def test_training_without_augmentation_returns_the_images_of_the_dataset() -> None:
    for batch in steps(0, 3, pipeline=[]):
        expected = torch.stack([Numbered()[index]["image"] for index in batch.indices.tolist()])
        assert torch.equal(batch.images, expected)


def evaluated(indices: list[int], batch: int, workers: int = 0) -> list[EvaluationBatch]:
    return list(evaluation_batches(Numbered(), indices, batch, workers))


def test_evaluation_keeps_the_order_and_marks_the_annotators_present() -> None:
    (batch,) = evaluated([5, 0, 4], 3)
    assert batch.indices.tolist() == [5, 0, 4]
    assert batch.names == ["number 5", "number 0", "number 4"]
    assert batch.groups == [5, 0, 4]
    assert batch.present.tolist() == [[True, True, True], [True, False, False], [True, True, False]]
    assert batch.labels.shape == (3, 3, 3, 3)
    assert batch.labels[0, :, 0, 0].tolist() == [0, 1, 2]


@pytest.mark.parametrize(("batch", "workers"), [(1, 0), (3, 0), (3, 2), (50, 0)])
def test_evaluation_visits_every_image_once_for_any_batch_size(batch: int, workers: int) -> None:
    indices = torch.cat([part.indices for part in evaluated(list(range(LENGTH)), batch, workers)])
    assert indices.tolist() == list(range(LENGTH))


@pytest.mark.parametrize(
    ("length", "limit", "expected"),
    [(5, None, [0, 1, 2, 3, 4]), (5, 9, [0, 1, 2, 3, 4]), (9, 3, [1, 4, 7]), (10, 1, [5]), (4, 4, [0, 1, 2, 3])],
)
def test_subset_is_evenly_spaced(length: int, limit: int | None, expected: list[int]) -> None:
    assert evenly_spaced_indices(length, limit) == expected


@pytest.mark.parametrize("length", [7, 100])
def test_subset_of_any_size_has_distinct_indices(length: int) -> None:
    for limit in range(1, length + 1):
        indices = evenly_spaced_indices(length, limit)
        assert len(set(indices)) == limit
        assert 0 <= min(indices) <= max(indices) < length


MODULE = """
import torch

class Own:
    num_classes, image_channels = 2, 1
    def __init__(self, length): self.length = length
    def __len__(self): return self.length
    def __getitem__(self, index):
        return {"image": torch.zeros(1, 4, 4), "labels": torch.zeros(1, 4, 4, dtype=torch.uint8), "name": "x"}

def get_dataset(split, length=3):
    return Own(length)
"""


def refusal(dataset_file: str, **params: Any) -> str:
    with pytest.raises(UserError) as error:
        load_dataset(dataset_file, "train", params)
    return str(error.value)


def test_module_in_the_current_folder_is_found(user_module: UserModule) -> None:
    user_module("lesions_of_mine", MODULE)
    assert len(load_dataset("lesions_of_mine", "train", {})) == 3
    dataset = load_dataset("lesions_of_mine", "val", {"length": 8})
    assert len(dataset) == 8
    assert not isinstance(dataset, KnownDistribution)


@pytest.mark.parametrize(
    ("source", "params", "message"),
    [
        (
            MODULE,
            {"lenght": 3},
            "dataset_params: got an unexpected keyword argument 'lenght'; lesions_of_mine accepts:",
        ),
        (MODULE, {"length": 0}, "lesions_of_mine: split 'train' holds no images"),
        ("x = 1", {}, "dataset_file: lesions_of_mine has no function `get_dataset`"),
        ("import no_such_package", {}, "lesions_of_mine needs the package no_such_package"),
    ],
)
def test_module_that_does_not_fit_is_refused(
    user_module: UserModule, source: str, params: dict[str, Any], message: str
) -> None:
    user_module("lesions_of_mine", source)
    assert message in refusal("lesions_of_mine", **params)


@pytest.mark.parametrize(
    ("name", "params", "problem"),
    [
        ("synthetic", {"side": "32"}, "`side` should be a valid integer, but it is '32'"),
        ("synthetic", {"side": 10**9}, "`side` should be less than or equal to 256"),
        ("synthetic", {"seed": -1}, "`seed` should be greater than or equal to 0"),
        ("synthetic", {"path": ["x"]}, "`path` should be a valid string"),
        ("lidc", {"image_range": 3}, "`image_range` should be a valid tuple, but it is 3"),
        ("lidc", {"image_range": ["a", 1]}, "`image_range.0` should be a valid number, but it is 'a'"),
        ("lidc", {"image_range": [0, float("inf")]}, "`image_range.1` should be a finite number"),
        ("lidc", {"image_range": [1, 1]}, "`image_range` is (1.0, 1.0); expected two different values"),
        ("lidc", {"num_classes": 257}, "`num_classes` should be less than or equal to 256"),
        ("lidc_crops", {"whole": 2}, "`whole` should be a valid boolean"),
        ("cityscapes", {"size": [128]}, "`size.1` Field required"),
        ("cityscapes", {"size": [0, 256]}, "`size.0` should be greater than or equal to 1"),
        ("folder", {"path": "x", "size": [2**17, 1]}, "`size.0` should be less than or equal to 65536"),
    ],
)
def test_arguments_of_the_wrong_kind_are_refused(name: str, params: dict[str, Any], problem: str) -> None:
    with pytest.raises(UserError) as error:
        load_dataset(f"datasets.{name}", "train", params)
    assert f"dataset_params: {problem}" in str(error.value)


@pytest.mark.parametrize("name", ["no_such_module", "datasets.no_such"])
def test_module_that_does_not_exist_is_refused_with_those_that_do(name: str) -> None:
    message = refusal(name)
    assert f"dataset_file: there is no module {name}" in message
    assert all(known in message for known in ("datasets.synthetic", "datasets.lidc", "datasets.cityscapes"))
