"""Killed processes, signals and locked folders: a training that resumes ends like an undisturbed one, bit by bit."""

import os
import random
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest

import ddpm_train
from checkpoints.files import load_checkpoint, newest_intact
from tests.faults.conftest import LONG, STEPS, check_same_end, training_in, wait_for
from tests.processes import run_forked, start_forked
from training.signals import EXIT_PREEMPTED
from training.validation import Validation
from utils.errors import EXIT_USER_ERROR

KILLS = 50 if LONG else 6


def saved_step(folder: Path) -> int:
    path = newest_intact(folder) if folder.exists() else None
    return 0 if path is None else int(load_checkpoint(path)["step"])


def test_training_survives_being_killed_at_any_moment(
    data_folder: Path, folder: Path, uninterrupted: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    generator, kills, ends, saved = random.Random(0), 0, 0, 0
    while kills < KILLS:
        process = start_forked(training_in(data_folder, folder))
        process.join(timeout=generator.uniform(0.1, 2.0))
        if process.exitcode is None:
            process.kill()
            process.join()
            kills += 1
            assert saved_step(folder) >= saved, "a checkpoint was lost"
            saved = saved_step(folder)
        else:
            assert process.exitcode == 0
            check_same_end(folder, uninterrupted)
            shutil.rmtree(folder)
            ends, saved = ends + 1, 0
    training_in(data_folder, folder)()
    check_same_end(folder, uninterrupted)
    with capsys.disabled():
        print(f"\n{kills} of {kills} kills survived; {ends + 1} trainings ended like the undisturbed one")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
@pytest.mark.usefixtures("slowed")
def test_signal_saves_the_current_step(
    data_folder: Path, folder: Path, uninterrupted: dict[str, Any], number: signal.Signals
) -> None:
    process = start_forked(training_in(data_folder, folder, "checkpoint_freq=null"))
    wait_for(folder / "best_ged.pt")
    assert process.pid is not None
    os.kill(process.pid, number)
    time.sleep(0.05)
    os.kill(process.pid, signal.SIGTERM)  # torchrun and SLURM may both forward it
    process.join(timeout=180)
    assert process.exitcode == EXIT_PREEMPTED
    assert 17 <= load_checkpoint(folder / "last.pt")["step"] < STEPS
    assert "stopped after step" in (folder / "log.txt").read_text().splitlines()[-1]
    training_in(data_folder, folder)()
    check_same_end(folder, uninterrupted)


def test_validation_that_a_signal_interrupts_is_repeated_by_the_next_run(
    data_folder: Path, folder: Path, uninterrupted: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    validate = Validation.run

    def interrupted(self: Validation, *arguments: Any) -> Any:
        os.kill(os.getpid(), signal.SIGUSR1)
        return validate(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Validation, "run", interrupted)
        with pytest.raises(SystemExit):
            training_in(data_folder, folder)()
    stopped = load_checkpoint(folder / "last.pt")
    assert (stopped["step"], stopped["validated"]) == (17, 0)
    training_in(data_folder, folder)()
    check_same_end(folder, uninterrupted)


def test_death_of_one_process_stops_the_others_and_fewer_can_resume(
    data_folder: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train_step = ddpm_train.train_step

    def dying(state: Any, *arguments: Any) -> Any:
        if state.step == 5 and os.environ["RANK"] == "1":
            os.kill(os.getpid(), signal.SIGKILL)
        return train_step(state, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(ddpm_train, "train_step", dying)
        statuses = run_forked(3, training_in(data_folder, folder))
    assert statuses == [EXIT_USER_ERROR, -signal.SIGKILL, EXIT_USER_ERROR]
    assert saved_step(folder) == 4
    assert run_forked(2, training_in(data_folder, folder)) == [0, 0]
    assert saved_step(folder) == STEPS


@pytest.mark.usefixtures("slowed")
def test_death_of_a_data_loading_process_ends_the_run_with_a_message(
    data_folder: Path, folder: Path, uninterrupted: dict[str, Any]
) -> None:
    process = start_forked(training_in(data_folder, folder, "mp_loaders=2"))
    wait_for(folder / "last.pt")
    loaders = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    assert len(loaders) == 2
    os.kill(int(loaders[0]), signal.SIGKILL)
    process.join(timeout=180)
    assert process.exitcode == EXIT_USER_ERROR
    training_in(data_folder, folder)()
    check_same_end(folder, uninterrupted)


@pytest.mark.usefixtures("slowed")
def test_folder_is_locked_for_other_runs_until_its_run_is_killed(
    data_folder: Path, folder: Path, uninterrupted: dict[str, Any]
) -> None:
    first = start_forked(training_in(data_folder, folder, "mp_loaders=2"))
    wait_for(folder / "last.pt")
    second = start_forked(training_in(data_folder, folder))
    second.join(timeout=180)
    assert second.exitcode == EXIT_USER_ERROR
    assert first.exitcode is None
    first.kill()
    first.join()
    third = start_forked(training_in(data_folder, folder))  # the data loading processes of the first may still run
    third.join(timeout=300)
    assert third.exitcode == 0
    check_same_end(folder, uninterrupted)
