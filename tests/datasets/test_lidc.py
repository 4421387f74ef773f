"""HDF5 files in the LIDC layout: what they may hold, and how what is wrong with them is said."""

import pickle
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from datasets.lidc import HDF5Dataset, get_dataset
from datasets.loading import evaluation_batches, load_dataset
from tests.tiny import lesion_columns, write_hdf5
from utils.errors import UserError

SIZE = (5, 4)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data.hdf5"


def one_split(path: Path, **changes: Any) -> Path:
    """A file whose training split has 3 images; a change to None leaves the array out."""
    columns = {**lesion_columns(3, SIZE), **changes}
    return write_hdf5(path, {"train": {name: column for name, column in columns.items() if column is not None}})


def refusal(path: Path, split: str = "train") -> str:
    with pytest.raises(UserError) as error:
        HDF5Dataset(path, split)
    assert str(path) in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("channels", [None, 1, 3])
@pytest.mark.parametrize(
    ("dtype", "low", "high"), [(np.uint8, 0, 255), (np.float32, -0.5, 0.5), (np.float64, -0.5, 0.5)]
)
def test_images_come_out_between_minus_one_and_one(
    path: Path, channels: int | None, dtype: type, low: float, high: float
) -> None:
    images = np.full((3, *SIZE) if channels is None else (3, channels, *SIZE), low, dtype)
    images[1] = high
    images[2, ..., 0] = high
    dataset = HDF5Dataset(one_split(path, images=images), "train")
    assert dataset.image_channels == (channels or 1)
    black, white, both = (dataset[index]["image"] for index in range(3))
    assert black.dtype == torch.float32
    assert black.shape == (channels or 1, *SIZE)
    assert (black == -1).all()
    assert torch.allclose(white, torch.ones_like(white), atol=1e-6)
    assert (both[..., 0] > 0.99).all()
    assert (both[..., 1:] == -1).all()


def test_range_of_the_images_can_be_given(path: Path) -> None:
    images = np.full((3, *SIZE), 150, np.int16)
    dataset = get_dataset("train", str(one_split(path, images=images)), image_range=(100, 200))
    assert (dataset[0]["image"] == 0).all()


@pytest.mark.parametrize(("annotators", "num_classes"), [(1, 2), (4, 2), (6, 5)])
def test_any_number_of_annotators_and_classes(path: Path, annotators: int, num_classes: int) -> None:
    columns = lesion_columns(3, SIZE, num_classes, annotators)
    dataset = HDF5Dataset(write_hdf5(path, {"train": columns}), "train")
    assert (len(dataset), dataset.num_classes) == (3, num_classes)
    for index in range(3):
        labels = dataset[index]["labels"]
        assert labels.dtype == torch.uint8
        assert np.array_equal(labels.numpy(), columns["labels"][index])


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, bool])
def test_labels_of_any_integer_type_are_taken(path: Path, dtype: type) -> None:
    labels = np.zeros((3, 2, *SIZE), dtype)
    labels[:, 1] = 1
    dataset = HDF5Dataset(one_split(path, labels=labels), "train")
    assert dataset.num_classes == 2
    assert dataset[2]["labels"].flatten(1).unique(dim=1).flatten().tolist() == [0, 1]


def test_number_of_classes_is_the_argument_then_the_attribute_then_what_occurs(path: Path) -> None:
    write_hdf5(path, {"train": lesion_columns(3, SIZE)}, num_classes=4)
    assert HDF5Dataset(path, "train").num_classes == 4
    assert HDF5Dataset(path, "train", num_classes=7).num_classes == 7
    assert HDF5Dataset(one_split(path), "train").num_classes == 2


def test_patients_are_the_uids_or_else_the_images(path: Path) -> None:
    dataset = HDF5Dataset(one_split(path, uids=np.array([7, 7, 9])), "train")
    assert [dataset[index]["group"] for index in range(3)] == [7, 7, 9]
    assert [dataset[index]["name"] for index in range(3)] == ["train/0", "train/1", "train/2"]
    dataset = HDF5Dataset(one_split(path.with_name("other.hdf5")), "train")
    assert [dataset[index]["group"] for index in range(3)] == [0, 1, 2]


def test_missing_file_is_refused(path: Path) -> None:
    assert "there is no data file" in refusal(path)


def test_missing_split_is_refused_with_those_that_exist(path: Path) -> None:
    assert "no split 'val'; it has: train" in refusal(one_split(path), "val")
    assert "it has: nothing" in refusal(write_hdf5(path, {}), "val")


@pytest.mark.parametrize("channels", [0, 5000])
def test_impossible_number_of_channels_is_refused(path: Path, channels: int) -> None:
    images, labels = np.zeros((3, channels, 5, 4), np.uint8), np.zeros((3, 2, 5, 4), np.uint8)
    message = refusal(one_split(path, images=images, labels=labels))
    assert f"images have {channels} channels; expected 1 to 4096" in message


@pytest.mark.parametrize("name", ["images", "labels"])
def test_missing_array_is_refused_with_those_that_exist(path: Path, name: str) -> None:
    other = {"images": "labels", "labels": "images"}[name]
    assert f"has no data set '{name}'; it has: {other}" in refusal(one_split(path, **{name: None}))


@pytest.mark.parametrize(
    ("images", "labels"),
    [
        ((3, 5, 4), (2, 3, 5, 4)),
        ((3, 5, 4), (3, 2, 4, 5)),
        ((3, 5, 4), (3, 5, 4)),
        ((3, 20), (3, 2, 5, 4)),
        ((3, 1, 1, 5, 4), (3, 2, 5, 4)),
    ],
)
def test_shapes_that_do_not_fit_are_refused(path: Path, images: tuple[int, ...], labels: tuple[int, ...]) -> None:
    message = refusal(one_split(path, images=np.zeros(images), labels=np.zeros(labels, np.uint8)))
    assert f"images have shape {images} and labels {labels}" in message
    assert "expected N x H x W or N x channels x H x W" in message


def test_split_without_images_is_refused(path: Path) -> None:
    message = refusal(one_split(path, images=np.zeros((0, *SIZE)), labels=np.zeros((0, 2, *SIZE), np.uint8)))
    assert "holds no images" in message


def test_truncated_file_is_refused(path: Path) -> None:
    whole = write_hdf5(path, {"train": lesion_columns(40, SIZE)}).read_bytes()
    for length in (0, 100, len(whole) // 2, len(whole) - 100):
        path.write_bytes(whole[:length])
        assert "cannot be read as HDF5" in refusal(path)


def test_file_that_is_no_hdf5_is_refused(path: Path) -> None:
    path.write_text("images: none\n")
    assert "cannot be read as HDF5" in refusal(path)


def test_unknown_argument_is_refused_with_those_that_exist(path: Path) -> None:
    with pytest.raises(UserError, match=r"dataset_params: .*pth.*num_classes"):
        load_dataset("datasets.lidc", "train", {"pth": str(one_split(path))})


def test_open_data_set_can_be_sent_to_another_process(path: Path) -> None:
    dataset = HDF5Dataset(one_split(path), "train")
    item = dataset[1]
    received = pickle.loads(pickle.dumps(dataset))
    assert torch.equal(received[1]["image"], item["image"])
    assert torch.equal(received[1]["labels"], item["labels"])
    assert received.num_classes == dataset.num_classes


def test_worker_processes_read_what_this_process_reads(path: Path) -> None:
    dataset = HDF5Dataset(write_hdf5(path, {"train": lesion_columns(20, SIZE)}), "train")
    here = list(evaluation_batches(dataset, list(range(20)), 3, workers=0))
    there = list(evaluation_batches(dataset, list(range(20)), 3, workers=2))
    assert len(here) == len(there) == 7
    for one, other in zip(here, there, strict=True):
        assert torch.equal(one.images, other.images)
        assert torch.equal(one.labels, other.labels)
        assert one.names == other.names


# ---------------------------------------------------------------- what is wrong inside the file


def reading(path: Path, split: str = "train", workers: int = 0, **params: Any) -> str:
    """What is said while the file is opened and read."""
    with pytest.raises(UserError) as error:
        dataset = load_dataset("datasets.lidc", split, {"path": str(path), **params})
        list(evaluation_batches(dataset, list(range(len(dataset))), 2, workers))
    assert str(path) in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("workers", [0, 1])
def test_image_that_is_not_finite_is_named(path: Path, value: float, workers: int) -> None:
    columns = lesion_columns(3, SIZE)
    columns["images"][1, 4, 2] = value
    message = reading(one_split(path, **columns), workers=workers)
    assert f"train/1 (index 1): the image is {value:g} at (0, 4, 2); expected finite values" in message
    assert "\n" not in message


@pytest.mark.parametrize(("dtype", "value"), [(np.uint8, 2), (np.uint8, 255), (np.int64, -1), (np.float32, 0.5)])
@pytest.mark.parametrize("workers", [0, 1])
def test_label_that_is_no_class_is_named(path: Path, dtype: type, value: float, workers: int) -> None:
    columns = lesion_columns(3, SIZE)
    columns["labels"] = columns["labels"].astype(dtype)
    columns["labels"][2, 1, 3, 0] = value
    message = reading(one_split(path, **columns), num_classes=2, workers=workers)
    assert f"train/2: label {value} at (1, 3, 0); expected classes 0 .. 1" in message
    assert "\n" not in message


def test_number_of_classes_is_the_same_for_all_splits(path: Path) -> None:
    few, many = lesion_columns(3, SIZE), lesion_columns(3, SIZE, num_classes=5)
    write_hdf5(path, {"train": many, "val": few, "test": few})
    assert [HDF5Dataset(path, split).num_classes for split in ("train", "val", "test")] == [5, 5, 5]


def test_class_that_never_occurs_makes_the_number_of_classes_doubtful(path: Path) -> None:
    columns = lesion_columns(3, SIZE)
    columns["labels"] *= 255
    message = refusal(one_split(path, **columns))
    assert "labels reach 255, but 253 lower classes such as 2 occur nowhere" in message
    assert "num_classes" in message
    assert HDF5Dataset(path, "train", num_classes=256).num_classes == 256


def test_uids_of_another_number_are_refused(path: Path) -> None:
    assert "uids have shape (2,); expected one of each of the 3" in refusal(one_split(path, uids=np.arange(2)))


@pytest.mark.parametrize("name", ["images", "labels"])
def test_damage_inside_the_file_is_named(path: Path, name: str) -> None:
    columns = lesion_columns(30, (32, 32))
    with h5py.File(path, "w") as file:
        for key, column in columns.items():
            file.create_dataset(f"train/{key}", data=column, chunks=(1, *column.shape[1:]), compression=1)
        chunk = file[f"train/{name}"].id.get_chunk_info(20)
    contents = bytearray(path.read_bytes())
    contents[chunk.byte_offset : chunk.byte_offset + chunk.size] = bytes(chunk.size)
    path.write_bytes(contents)
    message = reading(path, num_classes=2)
    assert "train/20 cannot be read" in message
    assert "it is damaged" in message


def test_workers_can_read_after_this_process_has(path: Path) -> None:
    dataset = HDF5Dataset(write_hdf5(path, {"train": lesion_columns(20, SIZE)}), "train")
    here = [dataset[index]["image"] for index in range(20)]
    there = list(evaluation_batches(dataset, list(range(20)), 5, workers=2))
    assert torch.equal(torch.stack(here), torch.cat([batch.images for batch in there]))
