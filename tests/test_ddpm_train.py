"""Training: the same result however it is interrupted and loaded, and what it leaves behind."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

import ddpm_train
from checkpoints.files import load_checkpoint
from checkpoints.model import restore
from datasets.loading import TrainingBatch
from ddpm_train import Training
from tests import tiny
from tests.tiny import same
from tests.trainings import Train, batches_of, events
from utils.noise import derive_key
from utils.schema import TrainSettings
from utils.settings import load_settings

STATE = ("model", "average", "num_averaged", "optimizer", "step", "best")
AUGMENTED = ["dataset_pipeline_train=[flip, flip_vertical, quarter_turn]", "unet_openai.dropout=0.1"]


class StoppedError(Exception):
    """Stands for whatever ends a training early."""


@pytest.fixture(scope="module")
def uninterrupted(data_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The last checkpoint of a training with augmentation and dropout."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    ddpm_train.main(tiny.train_argv(data_folder, folder, *AUGMENTED))
    return load_checkpoint(folder / "last.pt")


def stop_at(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    train_step = Training.train_step

    def stopping(self: Training, batch: TrainingBatch) -> torch.Tensor:
        if self.step == step:
            raise StoppedError
        return train_step(self, batch)

    monkeypatch.setattr(Training, "train_step", stopping)


# ---------------------------------------------------------------- the same result


@pytest.mark.parametrize(("step", "saved"), [(7, 4), (8, 8)])
def test_training_resumed_gives_what_uninterrupted_training_gives(
    train: Train, tmp_path: Path, uninterrupted: dict[str, Any], step: int, saved: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        stop_at(patch, step)
        with pytest.raises(StoppedError):
            train("half", *AUGMENTED)
    assert load_checkpoint(tmp_path / "half" / "last.pt")["step"] == saved
    resumed = train("rest", *AUGMENTED, f"load_from={tmp_path}/half/last.pt")
    assert resumed["step"] == uninterrupted["step"] == 9
    assert all(same(resumed[name], uninterrupted[name]) for name in STATE)


def test_training_in_the_same_folder_goes_on_from_its_own_checkpoint(
    finished_run: Path, train: Train, tmp_path: Path
) -> None:
    whole = load_checkpoint(finished_run / "last.pt")
    with pytest.MonkeyPatch.context() as patch:
        stop_at(patch, 5)
        with pytest.raises(StoppedError):
            train("half")
    assert same(train("half", f"load_from={tmp_path}/half/last.pt")["model"], whole["model"])


def test_finished_training_resumed_changes_nothing(finished_run: Path, train: Train) -> None:
    whole = load_checkpoint(finished_run / "last.pt")
    again = train("again", f"load_from={finished_run}/last.pt")
    assert all(same(again[name], whole[name]) for name in STATE)


def test_same_seed_gives_the_same_weights_and_another_seed_others(finished_run: Path, train: Train) -> None:
    torch.manual_seed(12345)
    np.random.seed(12345)  # noqa: NPY002  global streams must not matter
    whole = load_checkpoint(finished_run / "last.pt")
    again, other = train("again"), train("other", "seed=1")
    assert all(same(again[name], whole[name]) for name in STATE)
    assert not same(other["model"], whole["model"])


def test_worker_processes_do_not_change_the_weights(finished_run: Path, train: Train) -> None:
    whole = load_checkpoint(finished_run / "last.pt")
    assert whole["settings"]["mp_loaders"] == 0
    assert same(train("workers", "mp_loaders=2")["model"], whole["model"])


def test_validation_does_not_change_the_weights(finished_run: Path, train: Train) -> None:
    whole = load_checkpoint(finished_run / "last.pt")
    assert same(train("unwatched", "validation_freq=100", "samples=1")["model"], whole["model"])


def test_loss_falls(data_folder: Path, tmp_path: Path) -> None:
    argv = tiny.train_argv(data_folder, tmp_path / "run", "max_epochs=30")
    training = Training(load_settings(TrainSettings, argv, default_file=""))
    batches = batches_of(training)

    @torch.no_grad()
    def loss() -> float:
        images, labels = (
            torch.cat(parts * 8) for parts in zip(*((b.images, b.labels) for b in batches[:3]), strict=True)
        )
        return float(training.model.loss(images, labels, derive_key("test", torch.arange(len(images)))).mean())

    before = loss()
    for batch in batches:
        training.train_step(batch)
    assert loss() < 0.7 * before


def test_learning_rate_follows_its_schedule(training: Training) -> None:
    rates = []
    for batch in batches_of(training):
        training.train_step(batch)
        rates.append(training.optimizer.param_groups[0]["lr"])
    assert rates == pytest.approx(np.linspace(1e-3, 1e-5, 10)[:-1])


# ---------------------------------------------------------------- what it leaves behind


def test_folder_holds_checkpoints_settings_and_log(finished_run: Path) -> None:
    names = {path.name for path in finished_run.iterdir() if not path.name.startswith("events.")}
    checkpoints = {"last.pt", "previous.pt", "best_ged.pt", "best_hm_iou.pt"}
    assert names == checkpoints | {"params.yml", "log.txt", ".lock"}
    log = (finished_run / "log.txt").read_text()
    assert "M parameters on cpu, 12 training images" in log
    assert all(name in log for name in ("model", "oracle", "majority vote", "always empty", "GED4"))


@pytest.mark.parametrize("name", ["last", "best_ged", "best_hm_iou"])
def test_checkpoints_load_and_sample(finished_run: Path, name: str) -> None:
    checkpoint = load_checkpoint(finished_run / f"{name}.pt")
    labels = restore(checkpoint).sample(tiny.images(2), 2, steps=3).labels
    assert labels.shape == (2, 2, tiny.SIDE, tiny.SIDE)
    assert checkpoint["step"] in (4, 8, 9)


def test_best_checkpoints_are_those_of_the_best_validations(finished_run: Path) -> None:
    curves = events(finished_run)
    for name, metric, best in (("best_ged", "val/ged_4", min), ("best_hm_iou", "val/hm_iou_4", max)):
        values = {event.step: event.value for event in curves.Scalars(metric)}
        step = load_checkpoint(finished_run / f"{name}.pt")["step"]
        assert values[step] == best(values.values())


def test_settings_in_the_folder_train_the_same_model(finished_run: Path, tmp_path: Path) -> None:
    path = finished_run / "params.yml"
    assert load_checkpoint(finished_run / "last.pt")["settings"] == yaml.safe_load(path.read_text())
    ddpm_train.main([str(path), f"output_path={tmp_path}/again"])
    weights = [load_checkpoint(folder / "last.pt")["model"] for folder in (finished_run, tmp_path / "again")]
    assert same(*weights)


def test_tensorboard_has_the_curves_and_the_panel(finished_run: Path) -> None:
    board = events(finished_run)
    for name, steps in {
        "train/loss": [2, 4, 6, 8, 9],
        "train/learning_rate": [2, 4, 6, 8, 9],
        "train/bad_steps": [2, 4, 6, 8, 9],
        "val/ged_4": [4, 8, 9],
        "val/hm_iou_4": [4, 8, 9],
    }.items():
        assert [event.step for event in board.Scalars(name)] == steps
        assert all(math.isfinite(event.value) for event in board.Scalars(name))
    panels = board.Images("val/samples")
    assert [panel.step for panel in panels] == [4, 8, 9]
    assert all(panel.encoded_image_string.startswith(b"\x89PNG") and panel.width > 300 for panel in panels)
    assert any("settings" in tag for tag in board.Tags()["tensors"])


def test_images_that_are_not_square_train_end_to_end(tmp_path: Path) -> None:
    columns = {split: tiny.lesion_columns(4, (30, 21), num_classes=3) for split in ("train", "val")}
    path = tiny.write_hdf5(tmp_path / "data.hdf5", columns)
    changes = [
        "dataset_file=datasets.lidc", f"dataset_params={{path: '{path}'}}", "dataset_pipeline_train=[flip]",
        "max_epochs=2", "mp_loaders=0", "class_weights=[1, 0.5, 0]", "unet_openai.channel_mult=[1, 1, 1]",
    ]  # fmt: skip
    ddpm_train.main(tiny.train_argv(None, tmp_path / "run", *changes))
    model = restore(load_checkpoint(tmp_path / "run" / "last.pt"))
    assert model.sample(tiny.images(1, size=(30, 21)), steps=2).labels.shape == (1, 1, 30, 21)


def test_linear_schedule_is_a_one_line_change(train: Train) -> None:
    assert train("linear", "beta_schedule=linear")["process"]["beta_schedule"] == "linear"
