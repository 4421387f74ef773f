"""Full disks, and files that are damaged or missing: a clear message, an undamaged checkpoint, and the same end."""

import errno
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from checkpoints.files import newest_intact
from tests.faults.conftest import Trial, wait_for


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system in memory with room for few checkpoints."""
    folder = tmp_path / "small"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", str(folder)]
    if subprocess.run(command, capture_output=True, check=False).returncode != 0:
        pytest.skip("mounting is not allowed here")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_full_disk_leaves_an_undamaged_checkpoint(trial: Trial, small_disk: Path) -> None:
    full = replace(trial, folder=small_disk / "run")
    (small_disk / "other").write_bytes(bytes(2 * 2**20))
    assert "is the disk full?" in full.refusal()
    assert newest_intact(full.folder) is not None
    assert list(full.folder.glob(".*.tmp")) == []
    shutil.copytree(full.folder, trial.folder)
    trial.finish()


@pytest.mark.parametrize("number", [1, 2, 5, 9])
def test_failed_write_leaves_an_undamaged_checkpoint(
    trial: Trial, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    fsync, calls = os.fsync, iter(range(1, 1000))

    def failing(descriptor: int) -> None:
        if not os.path.isdir(f"/proc/self/fd/{descriptor}") and next(calls) == number:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", failing)
        assert "cannot be written: No space left on device" in trial.refusal()
    assert (newest_intact(trial.folder) is None) == (number <= 2)  # the first file contains the settings
    trial.finish()


@pytest.fixture
def half(trial: Trial) -> Trial:
    """A training that was killed halfway."""
    process = trial.start()
    wait_for(trial.folder / "previous.pt")
    process.kill()
    process.join()
    return trial


def damage(path: Path, how: str) -> None:
    """Truncate the file, change a byte in the middle of its weights, or empty it."""
    whole = path.read_bytes()
    middle = len(whole) // 2
    changed = whole[:middle] + bytes([whole[middle] ^ 64]) + whole[middle + 1 :]
    path.write_bytes({"changed": changed, "truncated": whole[:middle], "empty": b""}[how])


@pytest.mark.parametrize("how", ["truncated", "changed", "empty"])
def test_damaged_checkpoint_is_skipped_for_the_previous_one(half: Trial, how: str) -> None:
    damage(half.folder / "last.pt", how)
    assert newest_intact(half.folder) == half.folder / "previous.pt"
    half.finish()


def test_training_with_only_damaged_checkpoints_does_not_start_again(half: Trial) -> None:
    for name in ("last.pt", "previous.pt"):
        damage(half.folder / name, "changed")
    before = {path: path.read_bytes() for path in half.folder.glob("*.pt")}
    assert "has no undamaged checkpoint" in half.refusal()
    assert {path: path.read_bytes() for path in half.folder.glob("*.pt")} == before


@pytest.mark.parametrize("fate", ["missing", "truncated"])
def test_lost_data_file_ends_the_run_with_a_message_and_once_restored_it_resumes(
    half: Trial, data_folder: Path, tmp_path: Path, fate: str
) -> None:
    (file,) = data_folder.glob("*.hdf5")
    lost = tmp_path / "data" / file.name
    if fate == "truncated":
        lost.parent.mkdir()
        lost.write_bytes(file.read_bytes()[:-1000])
    data = ["dataset_file=datasets.lidc", f"dataset_params={{path: '{lost}'}}"]
    assert str(lost) in replace(half, data=None).refusal(*data)
    half.finish()
