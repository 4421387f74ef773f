"""LIDC, or your own data, in one HDF5 file.

Layout: groups `train`, `val` and `test`, each with

    images   N x H x W or N x channels x H x W, float or integer
    labels   N x A x H x W, classes 0 .. C-1: the label maps of A annotators
    uids     N, integers: the patient (or other group) of each image; optional

and optionally the file's attributes `num_classes` and `benchmark` ("LIDCv1" if the paper's numbers are to be shown).
The LIDC benchmark's file has images in [-0.5, 0.5] and 4 annotators of 2 classes; nothing here depends on that.
`python -m datasets.preparation.lidc` creates it.
"""

import functools
from pathlib import Path
from typing import Annotated, Any

import h5py
import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch.utils.data import Dataset

from datasets.contract import as_label_maps
from datasets.hdf5 import check_array, members, open_file
from datasets.image_files import MAX_PIXELS
from utils.config import MAX_CHANNELS, MAX_CLASSES, Range, validate_arguments
from utils.errors import UserError, corrupt_file_as_user_error
from utils.paths import expand_path


class HDF5Dataset(Dataset[dict[str, Any]]):
    """One split of an HDF5 file in the layout above. Images are scaled to [-1, 1].

    Every process opens the file when it first reads an item, so the dataset can be sent to worker processes.

    Args:
        path: the file.
        split: name of its group: "train", "val" or "test".
        num_classes: C; by default the file's attribute `num_classes`, or else the largest label of all splits plus one.
        image_range: the values that become -1 and 1; by default (0, 255) for integers and (-0.5, 0.5) for floats.

    Raises:
        UserError: for a file or split that does not exist, and for contents that do not follow the layout.
    """

    def __init__(
        self, path: str | Path, split: str, num_classes: int | None = None, image_range: Range | None = None
    ) -> None:
        if image_range is not None and image_range[0] == image_range[1]:
            raise UserError(f"dataset_params: `image_range` is {image_range}; expected two different values")
        self.path, self.split = expand_path(path), split
        self.source = str(self.path)
        self._file: h5py.File | None = None
        with corrupt_file_as_user_error(self.path), open_file(self.path) as file:
            group = _checked_group(file, split, self.path)
            images = group["images"]
            self._length = len(images)
            self.image_channels = 1 if images.ndim == 3 else images.shape[1]
            modified = self.path.stat().st_mtime_ns
            self.num_classes = int(num_classes or file.attrs.get("num_classes") or _count_classes(self.path, modified))
            if not 1 <= self.num_classes <= MAX_CLASSES:
                raise UserError(f"{self.path} has num_classes {self.num_classes}; expected 1 to {MAX_CLASSES}")
            self.benchmark = str(file.attrs.get("benchmark", "")) or None
            self.uids: NDArray[Any] = group["uids"][()] if "uids" in group else np.arange(self._length)
            default_range = (-0.5, 0.5) if images.dtype.kind == "f" else (0.0, 255.0)
        self._low, self._high = image_range or default_range

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> dict[str, Any]:
        name = f"{self.split}/{index}"
        where = f"{self.path}: {name}"
        with corrupt_file_as_user_error(where):
            image, labels = self.group["images"][index], self.group["labels"][index]
        image = torch.from_numpy(image.astype(np.float32))
        scaled = (image - self._low) * (2 / (self._high - self._low)) - 1
        return {
            "image": scaled if scaled.dim() == 3 else scaled[None],
            "labels": as_label_maps(labels, self.num_classes, where),
            "name": name,
            "group": int(self.uids[index]),
        }

    @property
    def group(self) -> h5py.Group:
        """The split's group in the open file."""
        if self._file is None:
            self._file = open_file(self.path)
        return self._file[self.split]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_file": None}


@validate_arguments
def get_dataset(
    split: str,
    path: str = "${TMPDIR}/data_lidc.hdf5",
    num_classes: Annotated[int, Field(ge=1, le=MAX_CLASSES)] | None = None,
    image_range: Range | None = None,
) -> HDF5Dataset:
    """A split of the HDF5 at `path`; see `HDF5Dataset` for the other arguments."""
    return HDF5Dataset(path, split, num_classes, image_range)


def _checked_group(file: h5py.File, split: str, path: Path) -> h5py.Group:
    splits = members(file)
    if split not in splits or not isinstance(file[split], h5py.Group):
        raise UserError(f"{path} has no split {split!r}; it has: {', '.join(splits) or 'nothing'}")
    group, where = file[split], f"{path}: split {split!r}"
    arrays = members(group)
    for name in ("images", "labels"):
        if name not in arrays:
            raise UserError(f"{where} has no array {name!r}; it has: {', '.join(arrays) or 'nothing'}")
    for name in arrays:
        check_array(group, name)
    images, labels = group["images"].shape, group["labels"].shape
    if len(images) not in (3, 4) or len(labels) != 4 or images[0] != labels[0] or images[-2:] != labels[-2:]:
        raise UserError(
            f"{where}: images have shape {images} and labels {labels}; "
            f"expected N x H x W or N x channels x H x W, and N x annotators x H x W"
        )
    if len(images) == 4 and not 1 <= images[1] <= MAX_CHANNELS:
        raise UserError(f"{where}: images have {images[1]} channels; expected 1 to {MAX_CHANNELS}")
    if images[-2] * images[-1] > MAX_PIXELS:
        raise UserError(f"{where}: images have {images[-2:]} pixels; expected at most {MAX_PIXELS:,}")
    if "uids" in arrays and (group["uids"].shape != images[:1] or group["uids"].dtype.kind not in "iu"):
        uids = group["uids"]
        raise UserError(f"{where}: uids have shape {uids.shape} ({uids.dtype}); expected {images[:1]}, an integer each")
    return group


@functools.cache
def _count_classes(path: Path, _modified: int, rows: int = 64) -> int:
    """The largest label of all splits plus one, so that every split has the same C although it may lack classes."""
    seen = {0, 1}
    with corrupt_file_as_user_error(f"{path}: labels"), open_file(path) as file:
        splits = [split for split in members(file) if isinstance(file[split], h5py.Group)]
        for split in (split for split in splits if "labels" in members(file[split])):
            check_array(file[split], "labels")
            labels = file[split]["labels"]
            for start in range(0, len(labels), rows):
                block = labels[start : start + rows]
                if not 0 <= block.min() <= block.max() < MAX_CLASSES:
                    as_label_maps(block, MAX_CLASSES, f"{path}: {split}/{start}")
                if block.max() > 1:
                    seen.update(np.unique(block).tolist())
    missing = sorted(set(range(int(max(seen)))) - seen)
    if missing:
        raise UserError(
            f"{path}: labels reach {max(seen)}, but {len(missing)} lower classes such as {missing[0]} never occur; "
            f"expected classes 0 .. C-1. If that is intended, set dataset_params.num_classes"
        )
    return len(seen)
