"""Run folders and their lock."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests import tiny
from training.run_dir import FolderLock, make_run_dir
from utils.errors import UserError


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
    (tmp_path / ".last.pt.0123456789abcdef.tmp").write_text("half")
    (tmp_path / "last.pt").write_text("whole")
    FolderLock(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {".lock", "last.pt"}
