"""The folder of a run: what it is called, and what is said about the run on the terminal and in its log."""

import datetime
import fcntl
import logging
import os
import socket
from pathlib import Path

from tqdm import tqdm

from utils.distributed import broadcast_from_main, is_main
from utils.errors import UserError
from utils.paths import expand_path, remove_temporary_files

LOGGER = logging.getLogger("ccdm")


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


def setup_logging(folder: Path | None = None) -> None:
    """Send the log to the terminal, and to `log.txt` in the folder; process 0 alone speaks for a run."""
    LOGGER.setLevel(logging.INFO if is_main() else logging.ERROR)
    LOGGER.handlers.clear()
    LOGGER.addHandler(_Terminal())
    if folder is not None and is_main():
        file = _LogFile(folder / "log.txt", encoding="utf-8")
        file.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
        LOGGER.addHandler(file)


class _Terminal(logging.Handler):
    """Lines above the progress bar, if there is one."""

    def emit(self, record: logging.LogRecord) -> None:
        tqdm.write(self.format(record))


class _LogFile(logging.FileHandler):
    """A full disk is an error to whoever logs, not a traceback on the side."""

    def handleError(self, record: logging.LogRecord) -> None:
        raise
