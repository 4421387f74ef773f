"""Run folders and their lock."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests import tiny
from training.run_dir import FolderLock, locked_run_dir, make_run_dir
from utils.errors import UserError
from utils.logs import setup_logging


def test_folder_is_named_after_dataset_and_time(tmp_path: Path) -> None:
    folder = make_run_dir(f"{tmp_path}/logs/${{DATASET}}_${{NOW}}", "my_package.my_lesions")
    assert folder.is_dir()
    assert folder.parent == tmp_path / "logs"
    assert re.fullmatch(r"my_lesions_\d{8}-\d{6}", folder.name)


def test_existing_folder_keeps_its_files(tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_text("keep me")
    assert make_run_dir(str(tmp_path), "datasets.synthetic") == tmp_path
    assert (tmp_path / "note.txt").read_text() == "keep me"


def test_lock_excludes_other_processes_until_its_process_is_killed(tmp_path: Path) -> None:
    source = f"""
import os, pathlib, time
from training.run_dir import FolderLock
lock = FolderLock(pathlib.Path({str(tmp_path)!r}))
loader = os.fork()  # as a process that loads data, which survives for some seconds
print(loader, flush=True) if loader else None
time.sleep(60)
"""
    command = [sys.executable, "-c", source]
    with subprocess.Popen(command, cwd=tiny.ROOT, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        loader = int(other.stdout.readline())
        with pytest.raises(UserError, match=rf"another run is writing into .*process {other.pid} on"):
            FolderLock(tmp_path)
        other.kill()
        other.wait()
        FolderLock(tmp_path).release()
        os.kill(loader, signal.SIGKILL)


def test_lock_removes_the_temporary_files_of_killed_runs(tmp_path: Path) -> None:
    (tmp_path / ".last.pt.0123456789abcdef.tmp").write_text("half")
    (tmp_path / "last.pt").write_text("whole")
    FolderLock(tmp_path).release()
    assert {path.name for path in tmp_path.iterdir()} == {".lock", "last.pt"}


def test_symbolic_links_in_a_run_folder_are_not_followed(tmp_path: Path) -> None:
    precious, folder = tmp_path / "precious", tmp_path / "run"
    precious.write_text("keep me")
    folder.mkdir()
    for name in (".lock", "log.txt"):
        (folder / name).symlink_to(precious)
    with pytest.raises(UserError, match="is a symbolic link; remove it"):
        FolderLock(folder)
    with pytest.raises(OSError, match="symbolic links"):
        setup_logging(folder)
    assert precious.read_text() == "keep me"


def test_folder_stays_only_if_something_was_written_into_it(tmp_path: Path) -> None:
    with locked_run_dir(f"{tmp_path}/run", "") as folder:
        assert [path.name for path in folder.iterdir()] == [".lock"]
    assert not folder.exists()
    with locked_run_dir(f"{tmp_path}/run", "") as folder:
        (folder / "log.txt").write_text("something")
    assert (folder / "log.txt").exists()
    with locked_run_dir(f"{tmp_path}/run", ""):
        pass
