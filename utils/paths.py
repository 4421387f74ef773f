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


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a temporary file beside `path`, flush it to the disk, and move it into place.

    Raises:
        UserError: where the folder cannot be written or the disk is full; `path` is then as it was before.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(temporary)
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror or error}") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()
