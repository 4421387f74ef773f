"""Run folders and the log."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import tiny
from training.run_dir import LOGGER, FolderLock, _LogFile, make_run_dir, setup_logging
from utils.errors import UserError


@pytest.fixture(autouse=True)
def _restore_logger() -> Iterator[None]:
    yield
    for handler in LOGGER.handlers:
        handler.close()
    LOGGER.handlers.clear()


def test_folder_is_named_after_data_set_and_time(tmp_path: Path) -> None:
    folder = make_run_dir(f"{tmp_path}/logs/${{DATASET}}_${{NOW}}", "my_package.my_lesions")
    assert folder.is_dir()
    assert folder.parent == tmp_path / "logs"
    assert re.fullmatch(r"my_lesions_\d{8}-\d{6}", folder.name)


def test_folder_that_exists_is_taken_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_text("keep me")
    assert make_run_dir(str(tmp_path), "datasets.synthetic") == tmp_path
    assert (tmp_path / "note.txt").read_text() == "keep me"


@pytest.mark.parametrize("below", ["", "/deeper"])
def test_folder_that_cannot_be_made_is_a_user_error(tmp_path: Path, below: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"file.*cannot be made"):
        make_run_dir(f"{tmp_path}/file{below}", "")


def test_log_goes_to_the_terminal_and_once_to_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    setup_logging()
    setup_logging(tmp_path)
    LOGGER.info("half way")
    assert capsys.readouterr().out == "half way\n"
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \S+ half way\n", (tmp_path / "log.txt").read_text())


def test_lock_is_held_against_other_processes_and_given_up_when_its_process_is_killed(tmp_path: Path) -> None:
    source = f"""
import pathlib, time
from training.run_dir import FolderLock
lock = FolderLock(pathlib.Path({str(tmp_path)!r}))
print("locked", flush=True)
time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", source], cwd=tiny.ROOT, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "locked\n"
        with pytest.raises(UserError, match=rf"another run is writing into .*process {other.pid} on"):
            FolderLock(tmp_path)
        other.kill()
    FolderLock(tmp_path)


def test_lock_removes_the_temporary_files_of_runs_that_were_killed(tmp_path: Path) -> None:
    (tmp_path / ".last.pt.123.tmp").write_text("half")
    (tmp_path / "last.pt").write_text("whole")
    FolderLock(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {".lock", "last.pt"}


def test_log_on_a_full_disk_is_an_error_to_whoever_logs() -> None:
    setup_logging()
    LOGGER.addHandler(_LogFile("/dev/full"))
    with pytest.raises(OSError, match="No space left"):
        LOGGER.info("half way")
    LOGGER.handlers.pop()
