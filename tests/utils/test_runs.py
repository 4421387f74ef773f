"""Run folders and the log."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from utils.errors import UserError
from utils.runs import LOGGER, log_to, run_folder


@pytest.fixture(autouse=True)
def _restore_logger() -> Iterator[None]:
    yield
    for handler in LOGGER.handlers:
        handler.close()
    LOGGER.handlers.clear()


def test_folder_is_named_after_data_set_and_time(tmp_path: Path) -> None:
    folder = run_folder(f"{tmp_path}/logs/${{DATASET}}_${{NOW}}", "my_package.my_lesions")
    assert folder.is_dir()
    assert folder.parent == tmp_path / "logs"
    assert re.fullmatch(r"my_lesions_\d{8}-\d{6}", folder.name)


def test_folder_that_exists_is_taken_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_text("keep me")
    assert run_folder(str(tmp_path), "datasets.synthetic") == tmp_path
    assert (tmp_path / "note.txt").read_text() == "keep me"


@pytest.mark.parametrize("below", ["", "/deeper"])
def test_folder_that_cannot_be_made_is_a_user_error(tmp_path: Path, below: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"file.*cannot be made"):
        run_folder(f"{tmp_path}/file{below}", "")


def test_log_goes_to_the_terminal_and_once_to_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log_to()
    log_to(tmp_path)
    LOGGER.info("half way")
    assert capsys.readouterr().out == "half way\n"
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \S+ half way\n", (tmp_path / "log.txt").read_text())
