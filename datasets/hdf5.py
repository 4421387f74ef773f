"""HDF5 files that others may have made: only arrays in the file itself, and no larger than the file can hold."""

import math
from pathlib import Path

import h5py

from utils.errors import UserError

MAX_COMPRESSION = 1100
"""Deflate shortens data to 1/1032 at most; an array that claims more contains nothing but a fill value."""
MAX_CHUNK_BYTES = 2**30


def open_file(path: Path) -> h5py.File:
    """Open a file for reading. Raises UserError if it does not exist or is not an HDF5 file."""
    if not path.is_file():
        raise UserError(f"there is no data file {path}; set dataset_params.path to your HDF5")
    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise UserError(f"{path} cannot be read as HDF5 ({error}); is it complete?") from error


def members(group: h5py.Group) -> list[str]:
    """The names of groups and arrays in a group. Raises UserError for links, which can lead to any file."""
    for name in group:
        if not isinstance(group.get(name, getlink=True), h5py.HardLink):
            raise UserError(f"{_place(group, name)} is a link; expected the data itself")
    return list(group)


def check_array(group: h5py.Group, name: str) -> None:
    """Check one of the `members`. Raises UserError if it is not an array of numbers, is stored in other files, or
    claims to be larger than its file can hold."""
    array, where = group[name], _place(group, name)
    if not isinstance(array, h5py.Dataset) or array.shape is None or array.dtype.kind not in "buif":
        raise UserError(f"{where} is not an array of numbers")
    if array.is_virtual or array.external:
        raise UserError(f"{where} is stored in other files; expected the data itself")
    num_bytes, size = math.prod(array.shape) * array.dtype.itemsize, Path(group.file.filename).stat().st_size
    if num_bytes > MAX_COMPRESSION * size or math.prod(array.chunks or ()) * array.dtype.itemsize > MAX_CHUNK_BYTES:
        raise UserError(f"{where} claims to have shape {array.shape}, but the file has only {size:,} bytes")


def _place(group: h5py.Group, name: str) -> str:
    return f"{group.file.filename}: {group.name.rstrip('/')}/{name}"
