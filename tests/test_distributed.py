"""Runs of several processes: the same training and evaluation as with one process, and a common end."""

import json
import multiprocessing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import ddpm_eval
import ddpm_train
from checkpoints.files import load_checkpoint
from datasets.loading import TrainingBatch
from tests import tiny
from tests.processes import run_forked
from tests.trainings import before_step, events
from utils.distributed import (
    all_gather_objects,
    all_reduce_sum,
    any_rank,
    broadcast_from_main,
    is_main,
    process_group,
    shard,
)
from utils.errors import UserError


def loss_curve(folder: Path) -> torch.Tensor:
    """The loss of every step of a training that logs every step."""
    return torch.tensor([event.value for event in events(folder).Scalars("train/loss")], dtype=torch.float64)


@pytest.fixture
def train(data_folder: Path, tmp_path: Path) -> Callable[..., Path]:
    """Train in that many processes; returns the run folder."""

    def run(processes: int, *changes: str) -> Path:
        folder = tmp_path / f"{processes}_processes"
        argv = tiny.train_argv(data_folder, folder, "batch_size=12", "mp_loaders=0", "display_freq=1", *changes)
        if processes == 1:
            ddpm_train.main(argv)
        else:
            assert run_forked(processes, lambda: ddpm_train.main(argv)) == [0] * processes
        return folder

    return run


def relative_difference(one: torch.Tensor, other: torch.Tensor) -> float:
    assert len(one) == len(other)
    return float(((one - other).abs() / one).max())


AUGMENTED = "dataset_pipeline_train=[flip, flip_vertical, quarter_turn]"


def test_loss_curve_is_the_same_for_any_number_of_processes(train: Callable[..., Path]) -> None:
    changes = ["train_for=6 epochs", "validation_freq=100", AUGMENTED, "optim.max_grad_norm=1"]
    one, five = (loss_curve(train(processes, *changes)) for processes in (1, 5))
    assert len(one) == 6
    assert relative_difference(one, five) < 1e-5  # of 12 images, two processes get three and three get two


@pytest.mark.slow
def test_loss_curve_stays_the_same_for_long(train: Callable[..., Path]) -> None:
    changes = ["train_for=200 epochs", "validation_freq=1000", AUGMENTED, "optim.learning_rate=1e-4"]
    one, two, three = (loss_curve(train(processes, *changes)) for processes in (1, 2, 3))
    assert len(one) == 200
    for other in (two, three):
        assert relative_difference(one[:20], other[:20]) < 1e-5
        assert relative_difference(one, other) < 1e-3


def test_training_resumes_with_another_number_of_processes(train: Callable[..., Path], tmp_path: Path) -> None:
    changes = ["train_for=5 epochs", "validation_freq=100", "n_validation_images=0"]
    whole = train(1, *changes)
    half = train(3, *changes, "checkpoint_freq=3")
    (tmp_path / "2_processes").mkdir()
    (half / "previous.pt").rename(tmp_path / "2_processes" / "last.pt")
    rest = train(2, *changes, "load_from=auto")
    assert relative_difference(loss_curve(whole)[3:], loss_curve(rest)) < 1e-5


def test_evaluation_is_the_same_for_any_number_of_processes(finished_run: Path, tmp_path: Path) -> None:
    def results(name: str) -> Any:
        return json.loads((tmp_path / name / "results.json").read_text())["results"]

    def argv(name: str) -> list[str]:
        return tiny.eval_argv(finished_run / "last.pt", tmp_path / name, "batch_size=1", "n_validation_images=0")

    ddpm_eval.main(argv("one"))
    assert run_forked(3, lambda: ddpm_eval.main(argv("three"))) == [0, 0, 0]
    one, three = results("one"), results("three")
    for line in (*one, *three):
        line["metrics"] = [row for row in line["metrics"] if row["metric"] != "seconds"]
    assert one == three
    rows = (tmp_path / "three" / "cache" / "model_seed_0.jsonl").read_text().splitlines()
    assert len(rows) == 1 + tiny.SPLIT_SIZES["test"]


def test_step_that_is_not_finite_in_one_process_is_skipped_by_all(train: Callable[..., Path]) -> None:
    def broken_elsewhere(batch: TrainingBatch) -> TrainingBatch:
        return batch if is_main() else batch._replace(images=torch.full_like(batch.images, float("nan")))

    with pytest.MonkeyPatch.context() as patch:
        before_step(patch, 1, broken_elsewhere)
        checkpoint = load_checkpoint(train(2, "max_nonfinite_steps=1") / "last.pt")
    assert checkpoint["nonfinite_steps"] == [1, 2, "loss"]
    assert checkpoint["num_averaged"] == 2
    assert {float(state["step"]) for state in checkpoint["optimizer"]["state"].values()} == {2.0}


def test_all_processes_end_when_one_fails(data_folder: Path, tmp_path: Path) -> None:
    argv = tiny.train_argv(data_folder, tmp_path / "run", "mp_loaders=0")

    def failing_elsewhere(batch: TrainingBatch) -> TrainingBatch:
        if not is_main():
            raise UserError("no more")
        return batch

    def work() -> None:
        try:
            ddpm_train.main(argv)
        except UserError as error:
            raise SystemExit(
                3 if "no more" in str(error) else 4 if "lost another process" in str(error) else 5
            ) from None

    with pytest.MonkeyPatch.context() as patch:
        before_step(patch, 2, failing_elsewhere)
        assert run_forked(2, work) == [4, 3]


def test_more_processes_than_images_of_a_batch_are_refused(data_folder: Path, tmp_path: Path) -> None:
    argv = tiny.train_argv(data_folder, tmp_path / "run", "batch_size=1")
    refused = multiprocessing.get_context("fork").Barrier(2)

    def work() -> None:
        with pytest.raises(UserError, match="batch_size is 1; 2 processes need one image each"):
            ddpm_train.main(argv)
        refused.wait(60)  # the first to leave would close the connection of the other

    assert run_forked(2, work) == [0, 0]


def test_processes_exchange_values() -> None:
    def work() -> None:
        with process_group():
            mine = 1 if is_main() else 10
            tensors = [torch.full((2, 2), float(mine)), torch.tensor(float(mine))]
            all_reduce_sum(tensors)
            assert all((tensor == 21).all() for tensor in tensors)
            assert all_gather_objects(mine) == [1, 10, 10]
            assert broadcast_from_main(lambda: mine) == 1
            assert any_rank(not is_main())
            assert not any_rank(False)
            shares = all_gather_objects(list(range(7))[shard()])
            assert sorted(item for share in shares for item in share) == list(range(7))

    assert run_forked(3, work) == [0, 0, 0]
