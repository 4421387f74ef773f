"""The folder of a run: its name, and the lock on it."""

import datetime
import fcntl
import os
import socket
from pathlib import Path

from utils.distributed import broadcast_from_main
from utils.errors import UserError
from utils.paths import expand_path, remove_temporary_files


def folder_name(output_path: str, dataset_file: str) -> Path:
    """The folder that `output_path` names: `${NOW}` is the time, `${DATASET}` the data set's name."""
    now = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    return expand_path(output_path.replace("${NOW}", now).replace("${DATASET}", dataset_file.rpartition(".")[2]))


def make_run_dir(output_path: str, dataset_file: str, setting: str = "output_path") -> Path:
    """The folder that `output_path` names, see `folder_name`, made if need be; the same one for all processes.

    `setting` is what the user calls it.

    Raises:
        UserError: where it cannot be made or written.
    """
    folder = broadcast_from_main(lambda: folder_name(output_path, dataset_file))
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{setting}: the folder {folder} cannot be made: {error.strerror or error}") from error
    if not os.access(folder, os.W_OK):
        raise UserError(f"{setting}: the folder {folder} cannot be written")
    return folder


class FolderLock:
    """The right to write into a folder, held until the process ends, however it ends.

    The lock is one of the operating system on the file `.lock`, not the file itself: what a crashed run leaves behind
    locks nobody out, and neither do the processes that loaded data for it.
    """

    def __init__(self, folder: Path) -> None:
        """Take the lock, and remove the temporary files of runs that were killed.

        Raises:
            UserError: where another run has it.
        """
        self._file = open(folder / ".lock", "a+", encoding="utf-8")  # noqa: SIM115  closing it would give it up
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._file.seek(0)
            holder = self._file.read().strip() or "another process"
            raise UserError(f"another run is writing into {folder}: {holder}. Take another output_path") from error
        self._file.truncate(0)
        self._file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        self._file.flush()
        remove_temporary_files(folder)
