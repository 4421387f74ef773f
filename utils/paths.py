"""Expanding paths, safe file names, and writing files atomically."""

import contextlib
import hashlib
import os
import re
import secrets
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path

from utils.errors import UserError

_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{16}\.tmp")
_MAX_NAME_BYTES = 150  # file systems allow 255, and suffixes are added


def expand_path(path: str | Path) -> Path:
    """Expand `~` and `${VARIABLES}`; if `${TMPDIR}` is not set, it is the system's folder for temporary files. Raises
    UserError for any other variable that is not set, and for a path that no file can have."""
    text = str(path)
    if not text or "\0" in text:
        raise UserError(f"{text!r} is not a path" + ("" if text else "; the current folder is called ."))
    if "TMPDIR" not in os.environ:
        text = text.replace("${TMPDIR}", tempfile.gettempdir()).replace("$TMPDIR", tempfile.gettempdir())
    expanded = os.path.expanduser(os.path.expandvars(text))
    if "$" in expanded:
        raise UserError(f"the path {path} contains an environment variable that is not set")
    return Path(expanded)


def safe_name(name: str) -> str:
    """A name that comes from data, as the name of a file or folder.

    It has no separators, control characters or surrogates, is not hidden and not too long. A name that had to be
    changed gets a digest of the original, so that different names stay different.

    >>> safe_name("nodule 7"), safe_name("../../x")
    ('nodule 7', 'x_55c35b3f')
    """
    printable = "".join(sign if sign.isprintable() and sign not in '/\\:*?"<>|' else "_" for sign in name)
    safe = printable.encode()[:_MAX_NAME_BYTES].decode(errors="ignore").strip(". ")
    if safe == name and name:
        return name
    digest = hashlib.blake2b(name.encode(errors="surrogatepass"), digest_size=4).hexdigest()
    return f"{safe.strip('._ ')}_{digest}".lstrip("_")


def refuse_planted(path: Path) -> None:
    """Check that a file in a folder to which everybody can write, such as /tmp, was not put there by another user.
    Raises UserError otherwise."""
    if not path.exists() or not hasattr(os, "getuid"):
        return
    public, owners = path.parent.stat().st_mode & stat.S_IWOTH, {path.lstat().st_uid, path.stat().st_uid}
    if public and not owners <= {os.getuid(), 0}:
        raise UserError(f"{path} belongs to another user; choose a folder of your own (dataset_params.path)")


def write_atomically(path: Path, write: Callable[[Path], object], previous: Path | None = None) -> None:
    """Let `write` fill a temporary file in the same folder, flush it to disk, and rename it to `path`.

    Missing folders are created; the file that is replaced becomes `previous`, if given. A process that is killed on the
    way leaves the temporary file behind; see `remove_temporary_files`. Raises UserError if the folder cannot be written
    or the disk is full; `path` is then unchanged.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(temporary)
        _flush(temporary, os.O_RDWR)  # Windows flushes only what is open for writing
        if previous is not None and path.exists():
            os.replace(path, previous)
        os.replace(temporary, path)
        with contextlib.suppress(OSError):  # not every file system can flush a folder
            _flush(path.parent, os.O_RDONLY)
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror or error}") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically; the invalid bytes of file names are escaped. Raises UserError as
    `write_atomically`."""
    write_atomically(path, lambda file: file.write_text(text, encoding="utf-8", errors="backslashreplace"))


def remove_temporary_files(folder: Path) -> None:
    """Remove what `write_atomically` left behind in a folder that no other process is writing to."""
    for path in folder.glob(".*.tmp"):
        if _TEMPORARY.fullmatch(path.name):
            path.unlink(missing_ok=True)


def _flush(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
