"""HDF5 files in the LIDC layout: what they may contain, and the messages about files that do not follow the layout."""

import pickle
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from datasets.lidc import HDF5Dataset, get_dataset
from datasets.loading import evaluation_batches, load_dataset
from tests.tiny import lesion_columns, same, write_hdf5
from utils.errors import UserError

SIZE = (5, 4)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data.hdf5"


def one_split(path: Path, **changes: Any) -> Path:
    """A file whose training split has 3 images; a change to None leaves the array out."""
    columns = {**lesion_columns(3, SIZE), **changes}
    return write_hdf5(path, {"train": {name: column for name, column in columns.items() if column is not None}})


def refusal(path: Path, split: str = "train", workers: int = 0, **params: Any) -> str:
    """The message when the file is opened and read."""
    with pytest.raises(UserError) as error:
        dataset = load_dataset("datasets.lidc", split, {"path": str(path), **params})
        list(evaluation_batches(dataset, list(range(len(dataset))), 2, workers))
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("channels", [None, 1, 3])
@pytest.mark.parametrize(
    ("dtype", "low", "high"), [(np.uint8, 0, 255), (np.float32, -0.5, 0.5), (np.float64, -0.5, 0.5)]
)
def test_images_are_scaled_to_minus_one_and_one(
    path: Path, channels: int | None, dtype: type, low: float, high: float
) -> None:
    images = np.full((3, *SIZE) if channels is None else (3, channels, *SIZE), low, dtype)
    images[1] = high
    images[2, ..., 0] = high
    dataset = HDF5Dataset(one_split(path, images=images), "train")
    assert dataset.image_channels == (channels or 1)
    black, white, both = (dataset[index]["image"] for index in range(3))
    assert same(black, torch.full((channels or 1, *SIZE), -1.0))
    assert torch.allclose(white, torch.ones_like(white), atol=1e-6)
    assert (both[..., 0] > 0.99).all()
    assert (both[..., 1:] == -1).all()


def test_range_of_the_images_can_be_given(path: Path) -> None:
    images = np.full((3, *SIZE), 150, np.int16)
    dataset = get_dataset("train", str(one_split(path, images=images)), image_range=(100, 200))
    assert (dataset[0]["image"] == 0).all()


@pytest.mark.parametrize(("annotators", "num_classes"), [(1, 2), (4, 2), (6, 5)])
@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.float32])
def test_any_number_of_annotators_and_classes(path: Path, annotators: int, num_classes: int, dtype: type) -> None:
    labels = lesion_columns(3, SIZE, num_classes, annotators)["labels"]
    dataset = HDF5Dataset(one_split(path, labels=labels.astype(dtype)), "train")
    assert (len(dataset), dataset.num_classes) == (3, num_classes)
    assert all(same(dataset[index]["labels"], torch.from_numpy(labels[index])) for index in range(3))


def test_boolean_labels_have_two_classes(path: Path) -> None:
    labels = np.zeros((3, 2, *SIZE), bool)
    labels[:, 1] = True
    dataset = HDF5Dataset(one_split(path, labels=labels), "train")
    assert dataset.num_classes == 2
    assert dataset[2]["labels"][:, 0, 0].tolist() == [0, 1]


def test_number_of_classes_is_the_argument_then_the_attribute_then_what_occurs_in_any_split(path: Path) -> None:
    few, many = lesion_columns(3, SIZE), lesion_columns(3, SIZE, num_classes=5)
    write_hdf5(path, {"train": few, "val": many}, num_classes=6)
    assert HDF5Dataset(path, "train", num_classes=7).num_classes == 7
    assert HDF5Dataset(path, "train").num_classes == 6
    write_hdf5(path, {"train": few, "val": many})
    assert [HDF5Dataset(path, split).num_classes for split in ("train", "val")] == [5, 5]


def test_patients_are_the_uids_or_else_the_images(path: Path) -> None:
    dataset = HDF5Dataset(one_split(path, uids=np.array([7, 7, 9])), "train")
    assert [dataset[index]["group"] for index in range(3)] == [7, 7, 9]
    assert [dataset[index]["name"] for index in range(3)] == ["train/0", "train/1", "train/2"]
    dataset = HDF5Dataset(one_split(path.with_name("other.hdf5")), "train")
    assert [dataset[index]["group"] for index in range(3)] == [0, 1, 2]


@pytest.mark.parametrize("workers", [1, 2])
def test_open_dataset_can_be_sent_to_other_processes(path: Path, workers: int) -> None:
    dataset = HDF5Dataset(write_hdf5(path, {"train": lesion_columns(20, SIZE)}), "train")
    here = list(evaluation_batches(dataset, list(range(20)), 3, workers=0))
    assert same(list(evaluation_batches(dataset, list(range(20)), 3, workers)), here)
    assert same(pickle.loads(pickle.dumps(dataset))[1], dataset[1])


def test_missing_file_is_refused(path: Path) -> None:
    assert "there is no data file" in refusal(path)


@pytest.mark.parametrize("fraction", [0, 0.1, 0.5, 0.99])
def test_file_that_is_not_a_complete_hdf5_is_refused(path: Path, fraction: float) -> None:
    whole = write_hdf5(path, {"train": lesion_columns(40, SIZE)}).read_bytes()
    path.write_bytes(whole[: int(fraction * len(whole))])
    assert "cannot be read as HDF5" in refusal(path)


def test_missing_split_is_refused_with_those_that_exist(path: Path) -> None:
    assert "no split 'val'; it has: train" in refusal(one_split(path), "val")
    assert "it has: nothing" in refusal(write_hdf5(path, {}), "val")


@pytest.mark.parametrize(("name", "other"), [("images", "labels"), ("labels", "images")])
def test_missing_array_is_refused_with_those_that_exist(path: Path, name: str, other: str) -> None:
    assert f"split 'train' has no array '{name}'; it has: {other}" in refusal(one_split(path, **{name: None}))


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        ((3, 5, 4), (2, 3, 5, 4), "images have shape (3, 5, 4) and labels (2, 3, 5, 4); expected N x H x W or"),
        ((3, 5, 4), (3, 2, 4, 5), "labels (3, 2, 4, 5)"),
        ((3, 5, 4), (3, 5, 4), "labels (3, 5, 4)"),
        ((3, 20), (3, 2, 5, 4), "images have shape (3, 20)"),
        ((3, 1, 1, 5, 4), (3, 2, 5, 4), "images have shape (3, 1, 1, 5, 4)"),
        ((3, 0, 5, 4), (3, 2, 5, 4), "images have 0 channels; expected 1 to 4096"),
        ((3, 5000, 5, 4), (3, 2, 5, 4), "images have 5000 channels; expected 1 to 4096"),
        ((0, 5, 4), (0, 2, 5, 4), "holds no images"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(
    path: Path, images: tuple[int, ...], labels: tuple[int, ...], message: str
) -> None:
    arrays = {"images": np.zeros(images, np.float32), "labels": np.zeros(labels, np.uint8)}
    assert message in refusal(one_split(path, **arrays))


def test_uids_of_another_number_are_refused(path: Path) -> None:
    assert "uids have shape (2,) (int64); expected (3,), an integer each" in refusal(one_split(path, uids=np.arange(2)))
    assert "uids have shape (3,) (float64)" in refusal(one_split(path, uids=np.zeros(3)))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("workers", [0, 1])
def test_image_that_is_not_finite_is_named(path: Path, value: float, workers: int) -> None:
    columns = lesion_columns(3, SIZE)
    columns["images"][1, 4, 2] = value
    message = refusal(one_split(path, **columns), workers=workers)
    assert f"train/1 (index 1): the image is {value:g} at (0, 4, 2); expected finite values" in message


@pytest.mark.parametrize(("dtype", "value"), [(np.uint8, 2), (np.uint8, 255), (np.int64, -1), (np.float32, 0.5)])
@pytest.mark.parametrize("workers", [0, 1])
def test_label_that_is_not_a_class_is_named(path: Path, dtype: type, value: float, workers: int) -> None:
    labels = lesion_columns(3, SIZE)["labels"].astype(dtype)
    labels[2, 1, 3, 0] = value
    message = refusal(one_split(path, labels=labels), num_classes=2, workers=workers)
    assert f"train/2: label {value} at (1, 3, 0); expected classes 0 .. 1" in message


def test_classes_that_never_occur_need_the_number_of_classes(path: Path) -> None:
    one_split(path, labels=lesion_columns(3, SIZE)["labels"] * 255)
    message = refusal(path)
    assert "labels reach 255, but 253 lower classes such as 2 never occur" in message
    assert "set dataset_params.num_classes" in message
    assert HDF5Dataset(path, "train", num_classes=256).num_classes == 256


@pytest.mark.parametrize("name", ["images", "labels"])
def test_damage_inside_the_file_is_located(path: Path, name: str) -> None:
    columns = lesion_columns(30, (32, 32))
    with h5py.File(path, "w") as file:
        for key, column in columns.items():
            file.create_dataset(f"train/{key}", data=column, chunks=(1, *column.shape[1:]), compression=1)
        chunk = file[f"train/{name}"].id.get_chunk_info(20)
    contents = bytearray(path.read_bytes())
    contents[chunk.byte_offset : chunk.byte_offset + chunk.size] = bytes(chunk.size)
    path.write_bytes(contents)
    assert "train/20 cannot be read; it may be damaged" in refusal(path, num_classes=2)
