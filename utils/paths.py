"""Paths as users write them, and writing files so that nobody sees half of one."""

import contextlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from utils.errors import UserError


def expand_path(path: str | Path) -> Path:
    """`~` and `${VARIABLES}` expanded; `${TMPDIR}` is the system's folder for temporary files where it is not set.

    Raises:
        UserError: for a variable that is not set.
    """
    text = str(path)
    if "TMPDIR" not in os.environ:
        text = text.replace("${TMPDIR}", tempfile.gettempdir()).replace("$TMPDIR", tempfile.gettempdir())
    expanded = os.path.expanduser(os.path.expandvars(text))
    if "$" in expanded:
        raise UserError(f"the path {path} names an environment variable that is not set")
    return Path(expanded)


def write_atomically(path: Path, write: Callable[[Path], object], previous: Path | None = None) -> None:
    """Let `write` fill a temporary file beside `path`, flush it to the disk, and move it into place.

    The file that was there moves to `previous`, where that is given. A process that is killed on the way leaves its
    temporary file; see `remove_temporary_files`.

    Raises:
        UserError: where the folder cannot be written or the disk is full; `path` is then as it was before.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(temporary)
        _flush(temporary)
        if previous is not None and path.exists():
            os.replace(path, previous)
        os.replace(temporary, path)
        with contextlib.suppress(OSError):  # not every file system does that
            _flush(path.parent)
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror or error}") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def write_text(path: Path, text: str) -> None:
    """Write a text file, whole or not at all.

    Raises:
        UserError: as `write_atomically`.
    """
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def remove_temporary_files(folder: Path) -> None:
    """Remove what `write_atomically` left in a folder that nobody else writes into."""
    for left_over in folder.glob(".*.tmp"):
        left_over.unlink(missing_ok=True)


def _flush(path: Path) -> None:
    """Have the system write a file, or the names in a folder, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
