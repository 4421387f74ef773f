"""LIDC, or any data of your own, in one HDF5 file.

Layout: groups `train`, `val` and `test`, each with

    images   N x H x W or N x channels x H x W, float or integer
    labels   N x A x H x W, classes 0 .. C-1: the label maps of A annotators
    uids     N, integers: which patient (or other group) the image belongs to; optional

and optionally the file's attribute `num_classes`. The file of the LIDC benchmark holds images in [-0.5, 0.5] and 4
annotators of 2 classes; nothing here depends on that. `python -m datasets.preparation.lidc` makes it.
"""

import functools
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from datasets.checks import label_maps
from utils.errors import UserError, corrupt_file_as_user_error
from utils.paths import expand_path

DEFAULT_PATH = "${TMPDIR}/data_lidc.hdf5"

_ROWS = 64  # label maps of as many images are looked at together

MOST_CHANNELS = 4096
"""More than that is no image, but a damaged file."""


class HDF5Dataset(Dataset[dict[str, Any]]):
    """One split of an HDF5 file in the layout above. Images come out in [-1, 1].

    The file is opened lazily, once per process, so that the data set can be handed to worker processes.

    Args:
        path: the file.
        split: name of its group: "train", "val" or "test".
        num_classes: C; by default the file's attribute `num_classes`, or else the largest label of all splits plus one.
        image_range: the values that become -1 and 1; by default (0, 255) for integers and (-0.5, 0.5) for floats.

    Raises:
        UserError: for a file or split that is not there, and for contents that do not fit the layout.
    """

    def __init__(
        self,
        path: str | Path,
        split: str,
        num_classes: int | None = None,
        image_range: tuple[float, float] | None = None,
    ) -> None:
        self.path, self.split = expand_path(path), split
        self.source = str(self.path)
        self._file: h5py.File | None = None
        with corrupt_file_as_user_error(self.path), open_hdf5(self.path) as file:
            group = _split_group(file, split, self.path)
            images = group["images"]
            self._length = len(images)
            self.image_channels = 1 if images.ndim == 3 else images.shape[1]
            self.num_classes = int(num_classes or file.attrs.get("num_classes") or _count_classes(self.path))
            self.uids: NDArray[Any] = group["uids"][()] if "uids" in group else np.arange(self._length)
            default_range = (-0.5, 0.5) if images.dtype.kind == "f" else (0.0, 255.0)
        self._low, self._high = image_range or default_range

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> dict[str, Any]:
        name = f"{self.split}/{index}"
        with corrupt_file_as_user_error(f"{self.path}: {name}"):
            image, labels = self.group["images"][index], self.group["labels"][index]
        image = torch.from_numpy(image.astype(np.float32))
        scaled = (image - self._low) * (2 / (self._high - self._low)) - 1
        return {
            "image": scaled if scaled.dim() == 3 else scaled[None],
            "labels": label_maps(labels, self.num_classes, f"{self.path}: {name}"),
            "name": name,
            "group": int(self.uids[index]),
        }

    @property
    def group(self) -> h5py.Group:
        """The split's group in the open file."""
        if self._file is None:
            self._file = open_hdf5(self.path)
        return self._file[self.split]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_file": None}


def get_dataset(
    split: str,
    path: str = DEFAULT_PATH,
    num_classes: int | None = None,
    image_range: tuple[float, float] | None = None,
) -> HDF5Dataset:
    """The named split of the HDF5 at `path`; see `HDF5Dataset` for the other settings."""
    return HDF5Dataset(path, split, num_classes, image_range)


def open_hdf5(path: Path) -> h5py.File:
    """Open an HDF5 for reading.

    Raises:
        UserError: where there is no such file or it cannot be read as HDF5.
    """
    if not path.is_file():
        raise UserError(f"there is no data file {path}; set dataset_params.path to your HDF5")
    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise UserError(f"{path} cannot be read as HDF5 ({error}); is it complete?") from error


def _split_group(file: h5py.File, split: str, path: Path) -> h5py.Group:
    if split not in file:
        raise UserError(f"{path} has no split {split!r}; it has: {', '.join(file) or 'nothing'}")
    group = file[split]
    for name in ("images", "labels"):
        if name not in group:
            raise UserError(
                f"{path}: group {split!r} has no data set {name!r}; it has: {', '.join(group) or 'nothing'}"
            )
    images, labels = group["images"].shape, group["labels"].shape
    if len(images) not in (3, 4) or len(labels) != 4 or images[0] != labels[0] or images[-2:] != labels[-2:]:
        raise UserError(
            f"{path}: in split {split!r} images have shape {images} and labels {labels}; "
            f"expected N x H x W or N x channels x H x W, and N x annotators x H x W"
        )
    if images[0] == 0:
        raise UserError(f"{path}: split {split!r} holds no images")
    if len(images) == 4 and not 1 <= images[1] <= MOST_CHANNELS:
        raise UserError(f"{path}: in split {split!r} images have {images[1]} channels; expected 1 to {MOST_CHANNELS}")
    if "uids" in group and group["uids"].shape != images[:1]:
        raise UserError(
            f"{path}: in split {split!r} uids have shape {group['uids'].shape}; expected one of each of the "
            f"{images[0]} images"
        )
    return group


def _count_classes(path: Path) -> int:
    """The largest label of all splits plus one: the same C for each of them, though a class may occur in few."""
    return _scan_classes(path, path.stat().st_mtime_ns)


@functools.cache
def _scan_classes(path: Path, _modified: int) -> int:
    seen = {0, 1}
    with open_hdf5(path) as file, corrupt_file_as_user_error(f"{path}: labels"):
        for labels in (file[split]["labels"] for split in file if "labels" in file[split]):
            for start in range(0, len(labels), _ROWS):
                block = labels[start : start + _ROWS]
                if block.max() > 1:
                    seen.update(np.unique(block).tolist())
    missing = sorted(set(range(int(max(seen)))) - seen)
    if missing:
        raise UserError(
            f"{path}: labels reach {max(seen)}, but {len(missing)} lower classes such as {missing[0]} occur nowhere; "
            f"expected classes 0 .. C-1. If that is meant so, set dataset_params.num_classes"
        )
    return len(seen)
