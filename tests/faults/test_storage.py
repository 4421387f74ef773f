"""Full disks, and files that are damaged or missing: a clear message, an undamaged checkpoint, and the same end."""

import errno
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from checkpoints.files import load_checkpoint, newest_intact
from tests.faults.conftest import check_same_end, training_in, wait_for
from tests.processes import start_forked
from utils.errors import EXIT_USER_ERROR, UserError


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system in memory with room for few checkpoints."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip("mounting is not allowed here")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def refusal(data_folder: Path | None, folder: Path, capsys: pytest.CaptureFixture[str], *changes: str) -> str:
    """The message with which the training ends."""
    with pytest.raises(SystemExit) as ended:
        training_in(data_folder, folder, *changes)()
    assert ended.value.code == EXIT_USER_ERROR
    error = capsys.readouterr().err
    assert "Traceback" not in error
    return error.rpartition("error: ")[2]


def test_full_disk_leaves_an_undamaged_checkpoint(
    data_folder: Path,
    small_disk: Path,
    tmp_path: Path,
    uninterrupted: dict[str, Any],
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = small_disk / "run"
    (small_disk / "other").write_bytes(bytes(2 * 2**20))
    assert "is the disk full?" in refusal(data_folder, folder, capsys)
    assert newest_intact(folder) is not None
    assert list(folder.glob(".*.tmp")) == []
    shutil.copytree(folder, tmp_path / "elsewhere")
    training_in(data_folder, tmp_path / "elsewhere")()
    check_same_end(tmp_path / "elsewhere", uninterrupted)


@pytest.mark.parametrize("number", [1, 2, 5, 9])
def test_failed_write_leaves_an_undamaged_checkpoint(
    data_folder: Path,
    folder: Path,
    uninterrupted: dict[str, Any],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    number: int,
) -> None:
    fsync, calls = os.fsync, iter(range(1, 1000))

    def failing(descriptor: int) -> None:
        if not os.path.isdir(f"/proc/self/fd/{descriptor}") and next(calls) == number:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", failing)
        assert "cannot be written: No space left on device" in refusal(data_folder, folder, capsys)
    assert (newest_intact(folder) is None) == (number <= 2)  # the first file contains the settings
    training_in(data_folder, folder)()
    check_same_end(folder, uninterrupted)


@pytest.fixture
def half(data_folder: Path, folder: Path) -> Path:
    """The folder of a training that was killed halfway."""
    process = start_forked(training_in(data_folder, folder))
    wait_for(folder / "previous.pt")
    process.kill()
    process.join()
    return folder


def damage(path: Path, how: str) -> None:
    """Truncate the file, change a byte in the middle of its weights, or empty it."""
    whole = path.read_bytes()
    if how == "changed":
        middle = len(whole) // 2
        path.write_bytes(whole[:middle] + bytes([whole[middle] ^ 64]) + whole[middle + 1 :])
    else:
        path.write_bytes(whole[: {"truncated": len(whole) // 2, "empty": 0}[how]])


@pytest.mark.parametrize("how", ["truncated", "changed", "empty"])
def test_damaged_checkpoint_is_skipped_for_the_previous_one(
    data_folder: Path, half: Path, uninterrupted: dict[str, Any], how: str
) -> None:
    damage(half / "last.pt", how)
    assert newest_intact(half) == half / "previous.pt"
    training_in(data_folder, half)()
    check_same_end(half, uninterrupted)


def test_training_with_only_damaged_checkpoints_does_not_start_again(
    data_folder: Path, half: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("last.pt", "previous.pt"):
        damage(half / name, "changed")
    before = {path: path.read_bytes() for path in half.glob("*.pt")}
    assert "has no undamaged checkpoint" in refusal(data_folder, half, capsys)
    assert {path: path.read_bytes() for path in half.glob("*.pt")} == before


@pytest.mark.parametrize("fate", ["missing", "truncated"])
def test_lost_data_file_ends_the_run_with_a_message_and_once_restored_it_resumes(
    data_folder: Path,
    half: Path,
    tmp_path: Path,
    uninterrupted: dict[str, Any],
    capsys: pytest.CaptureFixture[str],
    fate: str,
) -> None:
    moved = tmp_path / "data"
    moved.mkdir()
    (file,) = data_folder.glob("*.hdf5")
    lost = moved / file.name
    if fate == "truncated":
        lost.write_bytes(file.read_bytes()[:-1000])
    data = ["dataset_file=datasets.lidc", f"dataset_params={{path: '{lost}'}}"]
    assert str(lost) in refusal(None, half, capsys, *data)
    training_in(data_folder, half)()
    check_same_end(half, uninterrupted)


def test_checkpoints_of_a_finished_run_are_the_two_newest_and_the_best(
    data_folder: Path, half: Path, uninterrupted: dict[str, Any]
) -> None:
    training_in(data_folder, half)()
    assert {path.stem for path in half.glob("*.pt")} == {"last", "previous", "best_ged", "best_hm_iou"}
    assert load_checkpoint(half / "previous.pt")["step"] <= load_checkpoint(half / "last.pt")["step"]
    with pytest.raises(UserError, match="no undamaged checkpoint"):
        for name in ("last", "previous"):
            damage(half / f"{name}.pt", "empty")
        newest_intact(half)
