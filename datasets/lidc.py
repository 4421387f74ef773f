"""LIDC, or any data of your own, in one HDF5 file.

Layout: groups `train`, `val` and `test`, each with

    images   N x H x W or N x channels x H x W, float or uint8
    labels   N x A x H x W, integers 0 .. C-1: the label maps of A annotators
    uids     N, integers: which patient (or other group) the image belongs to; optional

The file of the LIDC benchmark holds images in [-0.5, 0.5] and 4 annotators of 2 classes; nothing here depends on that.
"""

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from torch.utils.data import Dataset

from utils.errors import UserError
from utils.paths import expand_path

DEFAULT_PATH = "${TMPDIR}/data_lidc.hdf5"


class HDF5Dataset(Dataset[dict[str, Any]]):
    """One split of an HDF5 file in the layout above. Images come out in [-1, 1].

    The file is opened lazily, once per process, so that the data set can be handed to worker processes.

    Args:
        path: the file.
        split: name of its group: "train", "val" or "test".
        num_classes: C; by default the file's attribute `num_classes`, or else the largest label plus one.
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
        self._file: h5py.File | None = None
        with open_hdf5(self.path) as file:
            group = _split_group(file, split, self.path)
            images, labels = group["images"], group["labels"]
            self._length = len(images)
            self.image_channels = 1 if images.ndim == 3 else images.shape[1]
            self.num_classes = int(num_classes or file.attrs.get("num_classes") or labels[()].max() + 1)
            self.uids: np.ndarray = group["uids"][()] if "uids" in group else np.arange(self._length)
            default_range = (-0.5, 0.5) if images.dtype.kind == "f" else (0.0, 255.0)
        self._low, self._high = image_range or default_range

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> dict[str, Any]:
        group = self.group
        image = torch.from_numpy(group["images"][index].astype(np.float32))
        scaled = (image - self._low) * (2 / (self._high - self._low)) - 1
        return {
            "image": scaled if scaled.dim() == 3 else scaled[None],
            "labels": torch.from_numpy(group["labels"][index].astype(np.uint8)),
            "name": f"{self.split}/{index}",
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


def get_dataset(split: str, path: str = DEFAULT_PATH, **settings: Any) -> HDF5Dataset:
    """The named split of the HDF5 at `path`; see `HDF5Dataset` for the other settings."""
    return HDF5Dataset(path, split, **settings)


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
    return group
