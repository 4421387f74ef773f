"""HDF5 files that lead to other files, or claim to be larger than they are, are refused at once."""

import time
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from datasets import load_dataset
from tests.tiny import lesion_columns, write_hdf5
from utils.errors import UserError

SECRET = b"root:x:0:0"


def external_storage(group: h5py.Group, folder: Path) -> None:
    group.create_dataset("images", (1, 2, 5), "u1", external=[(str(folder / "secret"), 0, 10)])


def virtual(group: h5py.Group, folder: Path) -> None:
    layout = h5py.VirtualLayout((3, 8, 8), "f4")
    layout[:] = h5py.VirtualSource(str(folder / "other.hdf5"), "train/images", (3, 8, 8))
    group.create_virtual_dataset("images", layout)


def external_link(group: h5py.Group, folder: Path) -> None:
    group["images"] = h5py.ExternalLink(str(folder / "other.hdf5"), "train/images")


def soft_link(group: h5py.Group, folder: Path) -> None:
    group["images"] = h5py.SoftLink("/train/labels")


def linked_split(group: h5py.Group, folder: Path) -> None:
    group.file["more"] = h5py.ExternalLink(str(folder / "other.hdf5"), "train")


def huge(group: h5py.Group, folder: Path) -> None:
    group.create_dataset("images", (2**31, 8, 8), "f4", chunks=(1, 8, 8))


def huge_uids(group: h5py.Group, folder: Path) -> None:
    group["images"] = np.zeros((3, 8, 8))
    group.create_dataset("uids", (2**40,), "i8", chunks=(1000,))


def huge_chunks(group: h5py.Group, folder: Path) -> None:
    group.create_dataset("images", (3, 8, 8), "f4", maxshape=(None, 8, 8), chunks=(2**23, 8, 8))


def text(group: h5py.Group, folder: Path) -> None:
    group["images"] = "no numbers"


def no_array(group: h5py.Group, folder: Path) -> None:
    group.create_group("images")


def no_values(group: h5py.Group, folder: Path) -> None:
    group["images"] = h5py.Empty("f4")


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (external_storage, "/train/images is stored in other files; expected the data itself"),
        (virtual, "/train/images is stored in other files; expected the data itself"),
        (external_link, "/train/images is a link; expected the data itself"),
        (soft_link, "/train/images is a link; expected the data itself"),
        (linked_split, "/more is a link; expected the data itself"),
        (huge, "/train/images claims to have shape (2147483648, 8, 8), but the file has only"),
        (huge_uids, "/train/uids claims to have shape (1099511627776,), but the file has only"),
        (huge_chunks, "/train/images claims to have shape (3, 8, 8), but the file has only"),
        (text, "/train/images is not an array of numbers"),
        (no_array, "/train/images is not an array of numbers"),
        (no_values, "/train/images is not an array of numbers"),
    ],
)
def test_array_that_is_not_in_the_file_is_refused(
    tmp_path: Path, make: Callable[[h5py.Group, Path], None], problem: str
) -> None:
    (tmp_path / "secret").write_bytes(SECRET)
    write_hdf5(tmp_path / "other.hdf5", {"train": lesion_columns(3)})
    path = write_hdf5(tmp_path / "data.hdf5", {"train": {"labels": lesion_columns(3)["labels"]}})
    with h5py.File(path, "r+") as file:
        make(file["train"], tmp_path)
    start = time.monotonic()
    with pytest.raises(UserError) as error:
        load_dataset("datasets.lidc", "train", {"path": str(path)})
    assert str(error.value).startswith(f"{path}: {problem}")
    assert time.monotonic() - start < 2


@pytest.mark.parametrize(("value", "shown"), [(257, "num_classes 257"), (-1, "num_classes -1"), ("x", "damaged")])
def test_attribute_that_cannot_be_used_is_refused(tmp_path: Path, value: object, shown: str) -> None:
    path = write_hdf5(tmp_path / "data.hdf5", {"train": lesion_columns(3)}, num_classes=value)
    with pytest.raises(UserError, match=shown):
        load_dataset("datasets.lidc", "train", {"path": str(path)})


@pytest.mark.parametrize("label", [2**62, 256, -1, np.nan])
def test_labels_far_beyond_classes_are_named(tmp_path: Path, label: float) -> None:
    columns = lesion_columns(3)
    labels = columns["labels"].astype("f8" if np.isnan(label) else "i8")
    labels[1, 1, 2, 3] = label
    path = write_hdf5(tmp_path / "data.hdf5", {"train": {**columns, "labels": labels}})
    with pytest.raises(UserError, match=r"train/0: label \S+ at \(1, 1, 2, 3\); expected classes 0 .. 255"):
        load_dataset("datasets.lidc", "train", {"path": str(path)})


def test_compressed_empty_label_maps_are_read(tmp_path: Path) -> None:
    images = np.random.default_rng(0).random((3, 128, 128))
    path = write_hdf5(tmp_path / "data.hdf5", {"train": {"images": images}})
    with h5py.File(path, "r+") as file:
        file["train"].create_dataset("labels", data=np.zeros((3, 4, 128, 128), np.uint8), compression=9)
    assert load_dataset("datasets.lidc", "train", {"path": str(path)})[0]["labels"].sum() == 0
