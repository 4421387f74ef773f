"""Reading files of `torch.save` without executing anything in them, and without believing the sizes that they claim."""

import re
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from utils.errors import UserError
from utils.plain import leaves

_SHARED = 16
"""Tensors may share memory, as those of a model and its average do; together they are at most so often the file."""


class Ignored:
    """Takes the place of NumPy's arrays, which optimisers and schedulers of other software store: none is needed, and
    one whose parts disagree would be written to memory that is not its own."""

    def __init__(self, *_: Any) -> None: ...

    def __setstate__(self, _: Any) -> None: ...


_NUMPY: list[Any] = [
    (Ignored, f"numpy.{name}")
    for name in (
        "ndarray",
        "dtype",
        *(f"{module}.multiarray.{name}" for module in ("core", "_core") for name in ("_reconstruct", "scalar")),
    )
]


def read_torch_file(path: Path) -> Any:
    """Read a file of tensors, numbers, text, and containers of them, on the CPU.

    Raises UserError for a file that is missing, damaged, or contains anything else than data; for a compressed archive,
    tensors that claim to be much larger than the file, and containers without a bound, such as one that contains
    itself.
    """
    if not path.is_file():
        raise UserError(f"there is no checkpoint {path}")
    try:
        _check_archive(path)
        with torch.serialization.safe_globals(_NUMPY):
            contents = torch.load(path, map_location="cpu", weights_only=True)
    except (MemoryError, UserError):
        raise
    except PermissionError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    except Exception as error:  # what a damaged file raises inside the unpickler can be anything
        foreign = re.search(r"GLOBAL (\S+)", str(error))
        if foreign is not None:
            raise UserError(
                f"{path} cannot be read safely: it refers to {foreign[1]}, but only tensors, numbers and text are read"
            ) from error
        reason = [*str(error).strip().splitlines(), type(error).__name__][0]
        raise UserError(f"{path} is not a checkpoint, or it is damaged or truncated: {reason}") from error
    _check_contents(path, contents)
    return contents


def _check_archive(path: Path) -> None:
    """PyTorch stores without compression, so that an archive cannot become larger than its file."""
    if not zipfile.is_zipfile(path):
        return  # PyTorch's old format, or no checkpoint
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
    compressed = any(entry.compress_type != zipfile.ZIP_STORED for entry in entries)
    if compressed or sum(entry.file_size for entry in entries) > path.stat().st_size:
        raise UserError(f"{path} is damaged: it is a compressed archive, which PyTorch does not write")


def _check_contents(path: Path, contents: Any) -> None:
    room = _SHARED * path.stat().st_size
    try:
        for place, tensor in leaves(contents):
            if isinstance(tensor, Tensor):
                if not _is_ordinary(tensor):
                    raise ValueError(f"the tensor {'.'.join(map(str, place))} is not one of ordinary numbers")
                room -= tensor.numel() * tensor.element_size()
        if room < 0:
            raise ValueError("its tensors claim to be much larger than the file")
    except ValueError as error:
        raise UserError(f"{path} is damaged: {error}") from error


def _is_ordinary(tensor: Tensor) -> bool:
    """Whether a tensor has real numbers on the CPU, all in memory, and no attributes of its own."""
    return (
        type(tensor) in (Tensor, nn.Parameter)
        and not vars(tensor)
        and tensor.layout == torch.strided
        and tensor.device.type == "cpu"
        and not (tensor.is_quantized or tensor.is_complex() or tensor.is_neg())
    )
