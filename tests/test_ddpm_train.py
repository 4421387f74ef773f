"""Training: the same result however it is interrupted and loaded, what it leaves behind, and what it refuses."""

import copy
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from tensorboard.backend.event_processing.event_accumulator import IMAGES, EventAccumulator

import ddpm_train
from datasets.loading import TrainingBatch, training_batches
from ddpm_train import Training
from models import restore
from tests import tiny
from tests.conftest import UserModule
from tests.tiny import same
from utils.checkpoint import load_checkpoint, save_checkpoint
from utils.config import load_settings
from utils.errors import UserError
from utils.noise import derive_key
from utils.optimisation import BadSteps
from utils.schema import TrainSettings

STATE = ("model", "average", "num_averaged", "optimizer", "step", "best")
AUGMENTED = ["dataset_pipeline_train=[flip, flip_vertical, quarter_turn]", "unet_openai.dropout=0.1"]

Train = Callable[..., dict[str, Any]]


class StoppedError(Exception):
    """Stands for whatever ends a training early."""


@pytest.fixture
def train(data_folder: Path, tmp_path: Path) -> Train:
    """Train in a folder of that name; returns the last checkpoint."""

    def run(name: str, *changes: str) -> dict[str, Any]:
        ddpm_train.main(tiny.train_argv(data_folder, tmp_path / name, *changes))
        return load_checkpoint(tmp_path / name / "last.pt")

    return run


@pytest.fixture(scope="module")
def uninterrupted(data_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The last checkpoint of a training with augmentation and dropout."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    ddpm_train.main(tiny.train_argv(data_folder, folder, *AUGMENTED))
    return load_checkpoint(folder / "last.pt")


@pytest.fixture
def training(data_folder: Path, tmp_path: Path) -> Training:
    """A training that has not begun."""
    argv = tiny.train_argv(data_folder, tmp_path / "run")
    return Training(load_settings(TrainSettings, argv, default_file=""))


def batches_of(training: Training) -> list[TrainingBatch]:
    settings = training.settings
    return list(
        training_batches(
            training.data, settings.dataset_pipeline_train, settings.batch_size, 0, training.total_steps, 0, workers=0
        )
    )


def state_of(training: Training) -> list[Any]:
    modules = (training.model.state_dict(), training.average.module.state_dict())
    return copy.deepcopy([*modules, training.optimizer.state_dict()["state"]])


def stop_at(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    train_step = Training.train_step

    def stopping(self: Training, batch: TrainingBatch) -> torch.Tensor:
        if self.step == step:
            raise StoppedError
        return train_step(self, batch)

    monkeypatch.setattr(Training, "train_step", stopping)


def refusal(argv: list[str]) -> str:
    with pytest.raises(UserError) as error:
        ddpm_train.main(argv)
    message = str(error.value)
    assert message
    assert "\n\n" not in message
    return message


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


def events(folder: Path) -> EventAccumulator:
    return EventAccumulator(str(folder), size_guidance={IMAGES: 0}).Reload()


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


# ---------------------------------------------------------------- steps that are not finite


def test_step_on_a_bad_image_changes_nothing_and_is_counted(training: Training) -> None:
    batches = batches_of(training)
    training.train_step(batches[0])
    training.train_step(batches[1])
    before = state_of(training)
    training.train_step(batches[2]._replace(images=torch.full_like(batches[2].images, float("nan"))))
    assert same(state_of(training), before)
    assert training.guard.read() == BadSteps(1, 3, "loss")
    training.train_step(batches[3])
    assert not same(state_of(training), before)
    assert all(tensor.isfinite().all() for tensor in training.model.state_dict().values())


def test_infinite_gradient_of_a_finite_loss_changes_nothing_and_is_counted(training: Training) -> None:
    batches = batches_of(training)
    training.train_step(batches[0])
    before = state_of(training)
    weight = next(training.model.parameters())
    hook = weight.register_hook(lambda gradient: gradient.fill_(float("inf")))
    loss = training.train_step(batches[1])
    hook.remove()
    assert loss.isfinite()
    assert same(state_of(training), before)
    assert training.guard.read() == BadSteps(1, 2, "gradient")


BROKEN = """
import torch
from datasets.synthetic import get_dataset as whole

class Broken:
    def __init__(self, data): self.data, self.num_classes, self.image_channels = data, 2, 1
    def __len__(self): return len(self.data)
    def __getitem__(self, index):
        item = self.data[index]
        return {**item, "image": item["image"] + 3e38} if index == 5 else item

def get_dataset(split, **params):
    data = whole(split, **params)
    return Broken(data) if split == "train" else data
"""


ON_BROKEN = ["dataset_file=broken_lesions", "mp_loaders=0"]


def steps_with(index: int, training: Training) -> list[int]:
    """The steps, counted from 1, that see an image of the training split."""
    return [step for step, batch in enumerate(batches_of(training), 1) if index in batch.indices]


def test_bad_step_stops_the_run_at_the_next_read_out(
    training: Training, train: Train, tmp_path: Path, user_module: UserModule
) -> None:
    user_module("broken_lesions", BROKEN)
    first = steps_with(5, training)[0]
    with pytest.raises(UserError) as error:
        train("broken", *ON_BROKEN, "display_freq=4", "validation_freq=100")
    assert f"The first was step {first}, where the loss was not finite" in str(error.value)
    assert "max_bad_steps is 0" in str(error.value)
    checkpoint = load_checkpoint(tmp_path / "broken" / "bad_step.pt")
    assert checkpoint["step"] == math.ceil(first / 4) * 4
    assert all(tensor.isfinite().all() for tensor in checkpoint["model"].values())


def test_bad_steps_that_are_put_up_with_are_skipped_and_counted(
    training: Training, train: Train, tmp_path: Path, user_module: UserModule
) -> None:
    user_module("broken_lesions", BROKEN)
    number = len(steps_with(5, training))
    checkpoint = train("broken", *ON_BROKEN, "max_bad_steps=100")
    assert checkpoint["step"] == 9
    assert all(tensor.isfinite().all() for part in ("model", "average") for tensor in checkpoint[part].values())
    assert {float(state["step"]) for state in checkpoint["optimizer"]["state"].values()} == {9 - number}
    assert events(tmp_path / "broken").Scalars("train/bad_steps")[-1].value == number
    assert not (tmp_path / "broken" / "bad_step.pt").exists()


def test_one_bad_step_more_than_put_up_with_stops_the_run(train: Train, user_module: UserModule) -> None:
    user_module("broken_lesions", BROKEN)
    with pytest.raises(UserError, match=r"2 steps had no finite loss or gradient\..*max_bad_steps is 1"):
        train("broken", *ON_BROKEN, "max_bad_steps=1", "display_freq=1")


# ---------------------------------------------------------------- what it refuses


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (["batchsize=3"], "did you mean `batch_size`"),
        (["batch_size=many"], "`batch_size` should be a valid integer"),
        (["time_steps=0"], "`time_steps` should be greater than or equal to 1"),
        (["sampling.sampler=euler"], "'ancestral' or 'ddim'"),
        (["class_weights=[1, 1, 1]"], "class_weights has 3 values; datasets.synthetic has 2 classes"),
        (["sampling.steps=51"], "51"),
        (["dataset_pipeline_train=[flup]"], "unknown 'flup'"),
        (["dataset_file=no_such_module"], "no module no_such_module"),
        (["dataset_params={sied: 8}"], "sied"),
        (["beta_schedule=linear", "beta_schedule_params={s: 0.008}"], "beta_schedule"),
        (["beta_schedule_params={s: -1}"], "does not decrease"),
        (["unet_openai.num_head_channels=7"], "heads of 7"),
        (["load_from=nowhere.pt"], "there is no checkpoint nowhere.pt"),
        (["load_from=auto", "output_path=./${NOW}"], "one without ${NOW}"),
        (["optim.max_grad_norm=0"], "`optim.max_grad_norm` should be greater than 0"),
        (["checkpoint_freq=0"], "`checkpoint_freq` should be greater than or equal to 1"),
        (["device=cuda:99"], "cuda:99 is not there"),
        (["output_path=${NO_SUCH_VARIABLE}/x"], "NO_SUCH_VARIABLE"),
    ],
)
def test_bad_settings_are_refused_before_anything_is_written(
    data_folder: Path, tmp_path: Path, changes: list[str], said: str
) -> None:
    assert said in refusal(tiny.train_argv(data_folder, tmp_path / "run", *changes))
    assert list(tmp_path.iterdir()) == []


def test_linear_schedule_is_a_one_line_change(train: Train) -> None:
    assert train("linear", "beta_schedule=linear")["process"]["beta_schedule"] == "linear"


def test_folder_that_cannot_be_made_is_refused(data_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    message = refusal(tiny.train_argv(data_folder, tmp_path / "file" / "run"))
    assert f"output_path: the folder {tmp_path}/file/run cannot be made" in message


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("unet_openai.base_channels=64", "base_channels is 32 there and 64 in these settings"),
        ("time_steps=60", "time_steps is 50 there and 60 in these settings"),
        ("batch_size=6", "batch_size 4, the settings say 6"),
    ],
)
def test_checkpoint_that_does_not_fit_is_not_continued(
    finished_run: Path, data_folder: Path, tmp_path: Path, change: str, said: str
) -> None:
    changes = [f"load_from={finished_run}/last.pt", change]
    assert said in refusal(tiny.train_argv(data_folder, tmp_path / "run", *changes))
    assert list(tmp_path.iterdir()) == []


def test_truncated_checkpoint_is_not_continued(finished_run: Path, data_folder: Path, tmp_path: Path) -> None:
    whole = (finished_run / "last.pt").read_bytes()
    (tmp_path / "cut.pt").write_bytes(whole[: len(whole) // 2])
    assert "damaged or cut off" in refusal(
        tiny.train_argv(data_folder, tmp_path / "run", f"load_from={tmp_path}/cut.pt")
    )
    assert not (tmp_path / "run").exists()


def test_checkpoint_without_the_optimisers_state_is_not_continued(
    finished_run: Path, data_folder: Path, tmp_path: Path
) -> None:
    contents = load_checkpoint(finished_run / "last.pt")
    save_checkpoint(tmp_path / "part.pt", {name: contents[name] for name in contents if name != "optimizer"})
    assert "optimizer" in refusal(tiny.train_argv(data_folder, tmp_path / "run", f"load_from={tmp_path}/part.pt"))


# ---------------------------------------------------------------- as users start it


def script(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(tiny.ROOT / "ddpm_train.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.parametrize("mistake", ["unknown key", "unwritable folder"])
def test_script_ends_with_a_message_and_status_2(data_folder: Path, tmp_path: Path, mistake: str) -> None:
    output, in_the_way = tmp_path / "run", tmp_path / "file"
    in_the_way.write_text("")
    folder, change, said = {
        "unknown key": (output, "optim.learningrate=1", "did you mean `optim.learning_rate`?"),
        "unwritable folder": (in_the_way / "run", "seed=0", "cannot be made"),
    }[mistake]
    ended = script(*tiny.train_argv(data_folder, folder, change))
    assert ended.returncode == 2
    assert ended.stderr.splitlines()[-1].startswith("error: ")
    assert said in ended.stderr
    assert "Traceback" not in ended.stderr
    assert not output.exists()
