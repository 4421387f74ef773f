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
from checkpoints.files import load_checkpoint
from tests.faults.conftest import LONG, STEPS, Trial, wait_for
from tests.processes import exit_status, run_forked, start_forked
from training.signals import EXIT_PREEMPTED
from training.validation import Validation
from utils.errors import EXIT_USER_ERROR

KILLS = 50 if LONG else 6


def test_training_survives_being_killed_at_any_moment(trial: Trial) -> None:
    generator, kills, ends, saved = random.Random(0), 0, 0, 0
    while kills < KILLS:
        process = trial.start()
        process.join(timeout=generator.uniform(0.1, 2.0))
        if process.exitcode is None:
            process.kill()
            process.join()
            kills += 1
            assert trial.saved_step() >= saved, "a checkpoint was lost"
            saved = trial.saved_step()
        else:
            assert process.exitcode == 0
            trial.check_end()
            shutil.rmtree(trial.folder)
            ends, saved = ends + 1, 0
    trial.finish()
    with trial.capsys.disabled():
        print(f"\n{kills} of {kills} kills survived; {ends + 1} trainings ended like the undisturbed one")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
@pytest.mark.usefixtures("slowed")
def test_signal_saves_the_current_step(trial: Trial, number: signal.Signals) -> None:
    process = trial.start("checkpoint_freq=null")
    wait_for(trial.folder / "best_ged.pt")
    assert process.pid is not None
    os.kill(process.pid, number)
    time.sleep(0.05)
    os.kill(process.pid, signal.SIGTERM)  # torchrun and SLURM may both forward it
    assert exit_status(process) == EXIT_PREEMPTED
    assert 17 <= trial.saved_step() < STEPS
    assert "stopped after step" in (trial.folder / "log.txt").read_text().splitlines()[-1]
    trial.finish()


@pytest.mark.usefixtures("slowed")
def test_signal_to_the_process_group_spares_the_loading_processes(trial: Trial) -> None:
    process = start_forked(lambda: (os.setpgrp(), trial.run("mp_loaders=2", "checkpoint_freq=null")))
    wait_for(trial.folder / "best_ged.pt")
    assert process.pid is not None
    os.killpg(process.pid, signal.SIGTERM)
    assert exit_status(process) == EXIT_PREEMPTED
    assert 17 <= trial.saved_step() < STEPS
    trial.finish()


@pytest.mark.usefixtures("slowed")
def test_signal_before_the_first_step_is_not_lost(trial: Trial, monkeypatch: pytest.MonkeyPatch) -> None:
    load = ddpm_train.load_dataset

    def interrupted(*arguments: Any) -> Any:
        os.kill(os.getpid(), signal.SIGUSR1)
        return load(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(ddpm_train, "load_dataset", interrupted)
        with pytest.raises(SystemExit) as ended:
            trial.run()
    assert ended.value.code == EXIT_PREEMPTED
    assert trial.saved_step() == 1
    trial.finish()


def test_validation_that_a_signal_interrupts_is_repeated_by_the_next_run(
    trial: Trial, monkeypatch: pytest.MonkeyPatch
) -> None:
    validate = Validation.run

    def interrupted(self: Validation, *arguments: Any) -> Any:
        os.kill(os.getpid(), signal.SIGUSR1)
        return validate(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Validation, "run", interrupted)
        with pytest.raises(SystemExit):
            trial.run()
    stopped = load_checkpoint(trial.folder / "last.pt")
    assert (stopped["step"], stopped["validated"]) == (17, 0)
    trial.finish()


def test_death_of_one_process_stops_the_others_and_fewer_can_resume(
    trial: Trial, monkeypatch: pytest.MonkeyPatch
) -> None:
    train_step = ddpm_train.train_step

    def dying(state: Any, *arguments: Any) -> Any:
        if state.step == 5 and os.environ["RANK"] == "1":
            os.kill(os.getpid(), signal.SIGKILL)
        return train_step(state, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(ddpm_train, "train_step", dying)
        assert run_forked(3, trial.run) == [EXIT_USER_ERROR, -signal.SIGKILL, EXIT_USER_ERROR]
    assert trial.saved_step() == 4
    assert run_forked(2, trial.run) == [0, 0]
    assert trial.saved_step() == STEPS


@pytest.mark.usefixtures("slowed")
def test_death_of_a_data_loading_process_ends_the_run_with_a_message(trial: Trial) -> None:
    process = trial.start("mp_loaders=2")
    wait_for(trial.folder / "last.pt")
    loaders = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    assert len(loaders) == 2
    os.kill(int(loaders[0]), signal.SIGKILL)
    assert exit_status(process) == EXIT_USER_ERROR
    trial.finish()
