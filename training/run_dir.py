"""The folder of a run, and the lock that keeps other runs out of it."""

import contextlib
import datetime
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from utils.distributed import broadcast_from_main, is_main
from utils.errors import UserError
from utils.paths import expand_path, remove_temporary_files


def run_dir(output_path: str, dataset_file: str) -> Path:
    """The folder that `output_path` names: `${NOW}` is the time, `${DATASET}` the name of the dataset's module."""
    now = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    return expand_path(output_path.replace("${NOW}", now).replace("${DATASET}", dataset_file.rpartition(".")[2]))


def make_run_dir(output_path: str, dataset_file: str, setting: str = "output_path") -> Path:
    """Create the folder that `output_path` names (see `run_dir`) unless it exists; the same one on all ranks.

    Args:
        output_path: may contain `${NOW}`, `${DATASET}` and environment variables.
        dataset_file: the dotted name of the dataset's module.
        setting: what the user calls `output_path`, for messages.

    Raises:
        UserError: if it cannot be created or written to.
    """
    folder = broadcast_from_main(lambda: run_dir(output_path, dataset_file))
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{setting}: the folder {folder} cannot be made: {error.strerror or error}") from error
    if not os.access(folder, os.W_OK):
        raise UserError(f"{setting}: the folder {folder} cannot be written")
    return folder


@contextlib.contextmanager
def locked_run_dir(output_path: str, dataset_file: str) -> Iterator[Path]:
    """`make_run_dir` with a `FolderLock` of rank 0 for the duration of the block."""
    folder = make_run_dir(output_path, dataset_file)
    with FolderLock(folder) if is_main() else contextlib.nullcontext():
        yield folder


class FolderLock:
    """The right to write into a folder, held until `release`, the end of a `with` block, or the end of the process.

    The operating system holds the lock on the file `.lock`: it does not outlive a process that was killed, and the
    file itself locks nobody out.
    """

    def __init__(self, folder: Path) -> None:
        """Take the lock, and remove the temporary files of runs that were killed.

        Raises:
            UserError: if another run holds it, or its file is a symbolic link, whose target would be emptied.
        """
        self.folder, self._file = folder, folder / ".lock"
        if self._file.is_symlink():
            raise UserError(f"{self._file} is a symbolic link; remove it")
        self._lock = FileLock(self._file)
        try:
            self._lock.acquire(blocking=False)
        except Timeout as error:
            holder = "another process"
            with contextlib.suppress(OSError):  # Windows does not let others read a locked file
                holder = self._file.read_text(encoding="utf-8").strip() or holder
            message = f"another run is writing into {folder}: {holder}. Wait until it ends, or choose another folder"
            raise UserError(message) from error
        with contextlib.suppress(OSError):
            self._file.write_text(f"process {os.getpid()} on {socket.gethostname()}\n", encoding="utf-8")
        remove_temporary_files(folder)

    def __enter__(self) -> "FolderLock":
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def release(self) -> None:
        """Give the lock up; a folder into which nothing was written is removed."""
        with contextlib.suppress(OSError):
            if os.listdir(self.folder) == [self._file.name]:
                self._file.unlink()
                self.folder.rmdir()
        self._lock.release()
