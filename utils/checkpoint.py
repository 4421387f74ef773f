"""Checkpoint files: written whole or not at all, read without running anything that is in them."""

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from utils.errors import UserError
from utils.paths import expand_path, write_atomically

FORMAT_VERSION = 1
"""Raised whenever a reader of the version before could not make sense of a file."""

_KIND = "ccdm"
_REQUIRED = ("settings", "network", "process", "model", "average", "step")


def save_checkpoint(path: Path, contents: Mapping[str, Any]) -> None:
    """Write `contents` (state dicts, numbers, text and containers of them) to `path`, atomically.

    Raises:
        UserError: where the file cannot be written.
    """
    missing = [name for name in _REQUIRED if name not in contents]
    if missing:
        raise KeyError(f"a checkpoint needs {missing}")
    whole = {"kind": _KIND, "format_version": FORMAT_VERSION, **contents}
    write_atomically(path, lambda temporary: torch.save(whole, temporary))


def load_checkpoint(path: str | Path) -> dict[str, Any]:
    """The contents of a checkpoint, on the CPU.

    Raises:
        UserError: for a file that is missing, truncated, not a checkpoint of this software, or of a later version.
    """
    path = expand_path(path)
    if not path.is_file():
        raise UserError(f"there is no checkpoint {path}")
    try:
        contents = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, KeyError, AttributeError) as error:
        raise UserError(f"{path} is not a checkpoint, or it is damaged or cut off: {_first_line(error)}") from error
    if not isinstance(contents, dict) or contents.get("kind") != _KIND:
        raise UserError(f"{path} is not a checkpoint of this software")
    version = contents.get("format_version")
    if not isinstance(version, int) or version > FORMAT_VERSION:
        raise UserError(f"{path} has format version {version}; this software reads up to {FORMAT_VERSION}: update it")
    missing = [name for name in _REQUIRED if name not in contents]
    if missing:
        raise UserError(f"{path} lacks {', '.join(missing)}")
    return contents


def find_checkpoint(pattern: str) -> Path:
    """The file of that name, or the newest file that matches the pattern.

    Raises:
        UserError: where there is none.
    """
    path = expand_path(pattern)
    if not any(sign in pattern for sign in "*?["):
        return path
    anchor = Path(path.anchor)
    matches = list(anchor.glob(str(path.relative_to(anchor))) if path.is_absolute() else Path().glob(str(path)))
    if not matches:
        raise UserError(f"load_from: no checkpoint matches {pattern}; train one with ddpm_train.py, or name a file")
    return max(matches, key=lambda match: match.stat().st_mtime)


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
