"""The log of a run: on the terminal, and in `log.txt` of its folder."""

import logging
import os
from io import TextIOWrapper
from pathlib import Path

from tqdm import tqdm

from utils.distributed import is_main
from utils.text import visible

LOGGER = logging.getLogger("ccdm")


def setup_logging(folder: Path | None = None) -> None:
    """Send the log to the terminal and, given a folder, to `log.txt` in it. Only rank 0 logs more than errors."""
    LOGGER.setLevel(logging.INFO if is_main() else logging.ERROR)
    LOGGER.handlers.clear()
    LOGGER.addHandler(_Terminal())
    if folder is not None and is_main():
        file = _LogFile(folder / "log.txt", encoding="utf-8")
        file.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
        LOGGER.addHandler(file)


class _Terminal(logging.Handler):
    """Prints through tqdm, which keeps lines and progress bars apart."""

    def emit(self, record: logging.LogRecord) -> None:
        tqdm.write(visible(self.format(record)))


class _LogFile(logging.FileHandler):
    """Raises errors such as a full disk to the caller; `logging` would print a traceback and carry on."""

    def _open(self) -> TextIOWrapper:
        return open(self.baseFilename, "a", encoding=self.encoding, errors=self.errors, opener=_no_link)

    def format(self, record: logging.LogRecord) -> str:
        return visible(super().format(record))

    def handleError(self, record: logging.LogRecord) -> None:
        raise


def _no_link(path: str, flags: int) -> int:
    """Open a file, unless it is a symbolic link."""
    return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0), 0o666)
