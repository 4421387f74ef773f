"""Checkpoint files: written whole or not at all, read without running anything that is in them.

A run folder holds `last.pt` and, as `previous.pt`, the one before it, which makes way once the new one is complete; all
older ones are gone. Every checkpoint carries a digest of its contents, which reading compares.
"""

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from utils.errors import UserError
from utils.logs import LOGGER
from utils.paths import expand_path, write_atomically

FORMAT_VERSION = 1
"""Raised whenever a reader of the version before could not make sense of a file."""

LAST, PREVIOUS = "last.pt", "previous.pt"

_KIND = "ccdm"
_REQUIRED = ("settings", "network", "process", "model", "average", "step")

_REBUILD, _SCALAR = np.empty(0).__reduce__()[0], np.float64().__reduce__()[0]
_NUMPY: list[Any] = [
    np.ndarray,
    np.dtype,
    *(type(np.dtype(code)) for code in "?bBhHiIlLqQefdgFD"),
    *((function, f"{module}.multiarray.{name}")
      for module in ("numpy.core", "numpy._core")  # before and since NumPy 2
      for function, name in ((_REBUILD, "_reconstruct"), (_SCALAR, "scalar"))),
]  # fmt: skip
"""What a file with arrays of numbers asks for; optimisers and schedulers of other software keep such arrays."""


def save_checkpoint(path: Path, contents: Mapping[str, Any]) -> None:
    """Write `contents` (state dicts, numbers, text and containers of them) to `path`, atomically.

    Raises:
        UserError: where the file cannot be written.
    """
    missing = [name for name in _REQUIRED if name not in contents]
    if missing:
        raise KeyError(f"a checkpoint needs {missing}")
    whole = {**contents, "kind": _KIND, "format_version": FORMAT_VERSION}
    whole["digest"] = digest(whole)

    def write(temporary: Path) -> None:
        try:
            torch.save(whole, temporary)
        except RuntimeError as error:  # how PyTorch reports a full disk
            raise UserError(f"{path} cannot be written, is the disk full? {_first_line(error)}") from error

    write_atomically(path, write, path.with_name(PREVIOUS) if path.name == LAST else None)


def newest_intact(folder: Path) -> Path | None:
    """The newest checkpoint of a run folder that can be continued; None where nothing was saved.

    Raises:
        UserError: where all that was saved is damaged. To begin anew then, and write over it, is for the user to say.
    """
    damaged = []
    for path in (folder / LAST, folder / PREVIOUS):
        if path.exists():
            try:
                load_checkpoint(path)
                return path
            except UserError as error:
                LOGGER.warning("passed over: %s", error)
                damaged.append(str(error))
    if damaged:
        raise UserError(f"{folder} holds no intact checkpoint; remove them to begin anew. {'; '.join(damaged)}")
    return None


def digest(contents: Mapping[str, Any]) -> str:
    """A digest of all tensors, numbers and texts, with their names and types, but for an entry `digest`."""
    hasher = hashlib.sha256()
    _absorb(hasher, {name: value for name, value in contents.items() if name != "digest"})
    return hasher.hexdigest()


def load_checkpoint(path: str | Path) -> dict[str, Any]:
    """The contents of a checkpoint, on the CPU.

    Raises:
        UserError: for a file that is missing, truncated, not a checkpoint of this software, or of a later version.
    """
    path = expand_path(path)
    return checked_checkpoint(path, read_torch_file(path))


def read_torch_file(path: Path) -> Any:
    """What `torch.save` wrote, on the CPU: tensors, NumPy arrays, numbers, text, and containers of them.

    Raises:
        UserError: for a file that is missing, damaged, or holds anything else. Nothing in it is run.
    """
    if not path.is_file():
        raise UserError(f"there is no checkpoint {path}")
    try:
        with torch.serialization.safe_globals(_NUMPY):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # what a damaged file raises inside the unpickler can be anything
        foreign = re.search(r"GLOBAL (\S+)", str(error))
        if foreign is not None:
            raise UserError(
                f"{path} is not a checkpoint that can be read safely: it asks for {foreign[1]}, and only tensors, "
                f"numbers and text are read"
            ) from error
        raise UserError(f"{path} is not a checkpoint, or it is damaged or cut off: {_first_line(error)}") from error


def is_checkpoint(contents: Any) -> bool:
    """Whether a file's contents are a checkpoint of this software, of whatever version."""
    return isinstance(contents, dict) and contents.get("kind") == _KIND


def checked_checkpoint(path: Path, contents: Any) -> dict[str, Any]:
    """The contents of a file, once they have been found to be a checkpoint of this software.

    Raises:
        UserError: for other contents, a later version, and parts that are missing.
    """
    if not is_checkpoint(contents):
        raise UserError(f"{path} is not a checkpoint of this software")
    version = contents.get("format_version")
    if not isinstance(version, int) or version > FORMAT_VERSION:
        raise UserError(f"{path} has format version {version}; this software reads up to {FORMAT_VERSION}: update it")
    missing = [name for name in _REQUIRED if name not in contents]
    if missing:
        raise UserError(f"{path} lacks {', '.join(missing)}")
    wrong = [name for name in _REQUIRED if not isinstance(contents[name], int if name == "step" else Mapping)]
    if wrong:
        raise UserError(f"{path} is damaged: {', '.join(wrong)} cannot be what it holds of them")
    if "digest" in contents and contents["digest"] != digest(contents):
        raise UserError(f"{path} is damaged: its contents do not have the digest that was stored with them")
    return contents


def find_checkpoint(pattern: str) -> Path:
    """The file of that name, or the newest file that matches the pattern.

    Raises:
        UserError: where there is none.
    """
    path = expand_path(pattern)
    if path.exists() or not any(sign in pattern for sign in "*?["):
        return path
    anchor = Path(path.anchor)
    matches = list(anchor.glob(str(path.relative_to(anchor))) if path.is_absolute() else Path().glob(str(path)))
    if not matches:
        raise UserError(f"load_from: no checkpoint matches {pattern}; train one with ddpm_train.py, or name a file")
    return max(matches, key=lambda match: match.stat().st_mtime)


def _absorb(hasher: Any, part: Any) -> None:
    if isinstance(part, torch.Tensor):
        hasher.update(f"{part.dtype}{tuple(part.shape)}".encode())
        hasher.update(part.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    elif isinstance(part, Mapping):
        hasher.update(f"mapping of {len(part)}".encode())
        for item in part.items():
            _absorb(hasher, item)
    elif isinstance(part, list | tuple):
        hasher.update(f"list of {len(part)}".encode())
        for item in part:
            _absorb(hasher, item)
    else:
        hasher.update(f"{type(part).__name__} {part!r}".encode())


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
