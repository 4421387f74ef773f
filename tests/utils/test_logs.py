"""The log."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from utils.logs import LOGGER, _LogFile, setup_logging


@pytest.fixture(autouse=True)
def _restore_logger() -> Iterator[None]:
    yield
    for handler in LOGGER.handlers:
        handler.close()
    LOGGER.handlers.clear()


def test_log_goes_to_the_terminal_and_once_to_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    setup_logging()
    setup_logging(tmp_path)
    LOGGER.info("half way")
    assert capsys.readouterr().out == "half way\n"
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \S+ half way\n", (tmp_path / "log.txt").read_text())


def test_names_of_files_cannot_control_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    setup_logging(tmp_path)
    LOGGER.warning("skipped: %s", os.fsdecode(b"\x1b]0;caf\xe9\x9b"))
    expected = "skipped: \\x1b]0;caf\\udce9\\udc9b\n"
    assert capsys.readouterr().out == expected
    assert (tmp_path / "log.txt").read_text().endswith(expected)


def test_log_on_a_full_disk_is_an_error_to_whoever_logs() -> None:
    setup_logging()
    LOGGER.addHandler(_LogFile("/dev/full"))
    with pytest.raises(OSError, match="No space left"):
        LOGGER.info("half way")
    LOGGER.handlers.pop()
