"""The folder of a run: what it is called, and what is said about the run on the terminal and in its log."""

import datetime
import logging
import os
import sys
from pathlib import Path

from utils.errors import UserError
from utils.paths import expand_path

LOGGER = logging.getLogger("ccdm")


def run_folder(output_path: str, dataset_file: str, setting: str = "output_path") -> Path:
    """The folder that `output_path` names, made if need be: `${NOW}` is the time, `${DATASET}` the data set's name.

    `setting` is what the user calls it. Raises:
        UserError: where it cannot be made or written.
    """
    now = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    text = output_path.replace("${NOW}", now).replace("${DATASET}", dataset_file.rpartition(".")[2])
    folder = expand_path(text)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{setting}: the folder {folder} cannot be made: {error.strerror or error}") from error
    if not os.access(folder, os.W_OK):
        raise UserError(f"{setting}: the folder {folder} cannot be written")
    return folder


def log_to(folder: Path | None = None) -> None:
    """Send the log to the terminal, and to `log.txt` in the folder."""
    LOGGER.setLevel(logging.INFO)
    LOGGER.handlers.clear()
    terminal = logging.StreamHandler(sys.stdout)
    terminal.setFormatter(logging.Formatter("%(message)s"))
    LOGGER.addHandler(terminal)
    if folder is not None:
        file = logging.FileHandler(folder / "log.txt", encoding="utf-8")
        file.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
        LOGGER.addHandler(file)
