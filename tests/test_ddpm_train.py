"""Training: the same result however it is interrupted and loaded, and what it leaves in its folder."""

import itertools
import math
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import torch
import yaml
from torch import Tensor

import ddpm_train
from checkpoints.files import load_checkpoint
from checkpoints.model import build_model
from diffusion import SamplingConfig
from models import CCDM
from tests import tiny
from tests.conftest import UserModule
from tests.tiny import same
from tests.trainings import StartedTraining, Train, events, interrupted, start_training
from training import validation
from training.signals import EXIT_PREEMPTED
from utils.errors import UserError
from utils.noise import derive_key

STATE = ("model", "average", "num_averaged", "optimizer", "step", "best")
AUGMENTED = ["dataset_pipeline_train=[flip, flip_vertical, quarter_turn]", "network_params.dropout=0.1"]


@pytest.fixture(scope="module")
def uninterrupted(data_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The last checkpoint of a training with augmentation and dropout."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    ddpm_train.main(tiny.train_argv(data_folder, folder, *AUGMENTED))
    return load_checkpoint(folder / "last.pt")


# ---------------------------------------------------------------- the same result


@pytest.mark.parametrize(("step", "saved"), [(7, 4), (8, 8)])
def test_resumed_training_gives_the_result_of_an_uninterrupted_one(
    train: Train, tmp_path: Path, uninterrupted: dict[str, Any], step: int, saved: int
) -> None:
    interrupted(train, step, "half", *AUGMENTED)
    assert load_checkpoint(tmp_path / "half" / "last.pt")["step"] == saved
    resumed = train("rest", *AUGMENTED, f"load_from={tmp_path}/half/last.pt")
    assert resumed["step"] == uninterrupted["step"] == 9
    assert all(same(resumed[name], uninterrupted[name]) for name in STATE)


def test_a_network_in_two_stages_with_several_draws_per_image_resumes_and_samples(
    data_folder: Path, tmp_path: Path
) -> None:
    stage = "{channel_mult: [1], num_res_blocks: 1, attention_resolutions: [], patch_size: 2}"
    changes = ["network=models.two_stage", "draws_per_image=3", "loss.raters=all", "time_sampling=importance"]
    argv = [text for text in tiny.train_argv(data_folder, tmp_path, *changes) if "network_params" not in text]
    argv.append(f"network_params={{feature_channels: 4, encoder: {stage}, denoiser: {stage}}}")
    ddpm_train.main([*argv, f"output_path={tmp_path}/whole"])
    whole = load_checkpoint(tmp_path / "whole" / "last.pt")
    ddpm_train.main([*argv, f"output_path={tmp_path}/rest", f"load_from={tmp_path}/whole/previous.pt"])
    resumed = load_checkpoint(tmp_path / "rest" / "last.pt")
    assert all(same(resumed[name], whole[name]) for name in STATE)
    samples = build_model(resumed).sample(torch.zeros(1, 1, tiny.SIDE, tiny.SIDE), 2, SamplingConfig(steps=3))
    assert samples.labels.shape == (1, 2, tiny.SIDE, tiny.SIDE)


def test_training_resumes_from_its_own_folder(finished_run: Path, train: Train) -> None:
    whole = load_checkpoint(finished_run / "last.pt")
    interrupted(train, 5, "half", "load_from=auto")
    assert same(train("half", "load_from=auto")["model"], whole["model"])
    assert all(same(train("half", "load_from=auto")[name], whole[name]) for name in STATE), "nothing was left to do"


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
    assert same(train("unwatched", "validation_freq=100", "num_samples=1")["model"], whole["model"])


def test_loss_falls(data_folder: Path, tmp_path: Path) -> None:
    training = start_training(tiny.train_argv(data_folder, tmp_path / "run", "train_for=30 epochs"))
    batches = training.batches
    images, labels = (torch.cat(parts * 8) for parts in zip(*((b.images, b.labels) for b in batches[:3]), strict=True))

    @torch.no_grad()
    def loss() -> float:
        keys = derive_key("test", torch.arange(len(images)))
        return float(training.state.model.loss(images, labels, keys).mean())

    before = loss()
    for batch in batches:
        training.step(batch)
    assert loss() < 0.7 * before


def test_learning_rate_follows_its_schedule(training: StartedTraining) -> None:
    rates = []
    for batch in training.batches:
        training.step(batch)
        rates.append(training.state.optimizer.param_groups[0]["lr"])
    assert rates == pytest.approx(np.linspace(1e-3, 1e-5, 10)[:-1])


def test_training_in_short_invocations_gives_the_weights_of_a_long_one(
    finished_run: Path, data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = itertools.count()  # every look at it takes a second
    monkeypatch.setattr("training.signals.time", SimpleNamespace(monotonic=lambda: next(clock)))
    argv = tiny.train_argv(data_folder, tmp_path / "run", "load_from=auto", "stop_after=4 s")
    for _ in range(9):
        try:
            ddpm_train.main(argv)
            break
        except SystemExit as stopped:
            assert stopped.code == EXIT_PREEMPTED
    resumed = load_checkpoint(tmp_path / "run" / "last.pt")
    whole = load_checkpoint(finished_run / "last.pt")
    assert all(same(resumed[name], whole[name]) for name in STATE)
    assert (tmp_path / "run" / "log.txt").read_text().count("stopped after step") >= 2


# ---------------------------------------------------------------- what it leaves in its folder


def test_folder_holds_checkpoints_settings_and_log(finished_run: Path) -> None:
    names = {path.name for path in finished_run.iterdir() if not path.name.startswith("events.")}
    checkpoints = {"last.pt", "previous.pt", "best_ged.pt", "best_hm_iou.pt"}
    assert names == checkpoints | {"params.yml", "log.txt", ".lock"}
    log = (finished_run / "log.txt").read_text()
    assert "M parameters on cpu, 12 training images" in log
    assert "params.yml, recipe datasets.synthetic" in log
    assert "step 9: GED4" in log
    assert f"finished; ddpm_eval.py evaluates the checkpoints in {finished_run}" in log


def test_log_has_a_line_with_loss_speed_and_time_at_every_display_freq(finished_run: Path) -> None:
    line = r"step (\d)/9  loss [\d.]+  lr \S+  [\d.]+ images/s  elapsed 0:00:\d\d  remaining 0:\d\d:\d\d"
    steps = re.findall(line, (finished_run / "log.txt").read_text())
    assert steps == ["2", "4", "6", "8", "9"]


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
        "train/nonfinite_steps": [2, 4, 6, 8, 9],
        "val/ged_4": [4, 8, 9],
        "val/hm_iou_4": [4, 8, 9],
    }.items():
        assert [event.step for event in board.Scalars(name)] == steps
        assert all(math.isfinite(event.value) for event in board.Scalars(name))
    panels = board.Images("val/samples")
    assert [panel.step for panel in panels] == [4, 8, 9]
    assert all(panel.encoded_image_string.startswith(b"\x89PNG") and panel.width > 300 for panel in panels)
    assert any("settings" in tag for tag in board.Tags()["tensors"])


# ---------------------------------------------------------------- other data, process and validation

STREETS = """
import torch

class Streets:
    num_classes, image_channels, void_class = 3, 3, 2

    def __len__(self):
        return 6

    def __getitem__(self, index):
        labels = torch.zeros(1, 8, 8, dtype=torch.uint8)
        labels[:, : index + 1], labels[:, :, :2] = 1, 2
        image = torch.randn(3, 8, 8, generator=torch.Generator().manual_seed(index))
        return {"image": image, "labels": labels, "name": str(index)}

def get_dataset(split):
    return Streets()
"""


def test_error_in_a_validation_does_not_lose_the_training(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train("whole")
    with monkeypatch.context() as patch, pytest.raises(UserError, match="no such image"):
        patch.setattr(validation, "score_model", Mock(side_effect=UserError("no such image")))
        train("failed")
    assert load_checkpoint(tmp_path / "failed" / "last.pt")["step"] == 4
    assert all(same(train("failed", "load_from=auto")[name], whole[name]) for name in STATE)


def test_every_draw_of_an_image_has_another_rater(train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, list[list[int]]]] = []
    loss = CCDM.loss

    def spy(self: CCDM, images: Tensor, labels: Tensor, *rest: Any, **options: Any) -> Tensor:
        seen.append((labels.shape[1], options["rater"].tolist()))
        return loss(self, images, labels, *rest, **options)

    monkeypatch.setattr(CCDM, "loss", spy)
    train("run", "draws_per_image=3", "train_for=1 epoch")
    assert {number for number, _ in seen} == {4}
    assert {len(set(raters)) for _, rows in seen for raters in rows} == {3}


def test_data_with_a_void_class_select_checkpoints_by_mean_iou(tmp_path: Path, user_module: UserModule) -> None:
    user_module("streets", STREETS)
    changes = ["dataset_file=streets", "class_weights=uniform", "batch_size=2", "mp_loaders=0"]
    ddpm_train.main(tiny.train_argv(None, tmp_path / "run", *changes))
    assert {path.stem for path in (tmp_path / "run").glob("*.pt")} == {"last", "previous", "best_miou"}
    values = {event.step: event.value for event in events(tmp_path / "run").Scalars("val/miou_4")}
    best = load_checkpoint(tmp_path / "run" / "best_miou.pt")
    assert values[best["step"]] == max(values.values()) == pytest.approx(best["best"]["miou"])
    log = (tmp_path / "run" / "log.txt").read_text()
    assert "Mean IoU (4 samples) 0." in log
    assert "GED" not in log


def test_colour_images_that_are_not_square_with_five_classes_train_end_to_end(tmp_path: Path) -> None:
    columns = {split: tiny.lesion_columns(4, (30, 21), num_classes=5, annotators=7) for split in ("train", "val")}
    for arrays in columns.values():
        arrays["images"] = np.repeat(arrays["images"][:, None], 3, axis=1)
    path = tiny.write_hdf5(tmp_path / "data.hdf5", columns)
    changes = [
        "dataset_file=datasets.lidc", f"dataset_params={{path: '{path}'}}", "dataset_pipeline_train=[flip]",
        "train_for=2 epochs", "mp_loaders=0", "class_weights=[1, 0.5, 0, 1, 1]",
        "network_params.channel_mult=[1, 1, 1]",
    ]  # fmt: skip
    ddpm_train.main(tiny.train_argv(None, tmp_path / "run", *changes))
    model = build_model(load_checkpoint(tmp_path / "run" / "last.pt"))
    assert (model.network.config.num_classes, model.network.config.image_channels) == (5, 3)
    assert model.sample(tiny.images(1, 3, (30, 21)), sampling=SamplingConfig(steps=2)).labels.shape == (1, 1, 30, 21)


def test_short_processes_are_validated_with_all_of_their_steps_by_default(train: Train) -> None:
    changes = ["process_params.time_steps=10", "sampling.steps=null", "train_for=1 epoch"]
    assert train("short", *changes)["settings"]["sampling"]["steps"] is None


def test_deterministic_algorithms_are_used_on_request(train: Train) -> None:
    assert not torch.are_deterministic_algorithms_enabled()
    try:
        train("run", "deterministic=true", "train_for=1 epoch")
        assert torch.are_deterministic_algorithms_enabled()
        assert torch.backends.cudnn.deterministic
    finally:
        torch.use_deterministic_algorithms(False)
        torch.backends.cudnn.deterministic = False
