"""Where a training starts: `load_from` resumes a training or says why it cannot, `init_from` starts a new one."""

import math
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import pytest
import torch

import ddpm_train
from checkpoints.files import load_checkpoint, save_checkpoint
from datasets import synthetic
from tests import tiny
from tests.conftest import UserModule
from tests.tiny import same
from tests.trainings import Train, interrupted, start_training

SAME_DATA = """
from datasets.synthetic import get_dataset as whole

def get_dataset(split, num_classes=2, **params):
    data = whole(split, **params)
    data.num_classes, data.class_names = num_classes, None
    return data
"""
OTHER_NETWORK = "network_params={channel_mult: [1, 1], dropout: 0.1}"


@pytest.fixture
def half(train: Train, tmp_path: Path) -> Path:
    """The last checkpoint of a training that was interrupted after its validation at step 4."""
    interrupted(train, 5, "half")
    return tmp_path / "half" / "last.pt"


def official_file(path: Path) -> Path:
    """A file with nothing but the weights of the tiny network, as the official code may write it."""
    torch.save(tiny.model().network.state_dict(), path)
    return path


# ---------------------------------------------------------------- load_from


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("dataset_file=same_data", "its dataset_file is datasets.synthetic, but the settings say same_data"),
        ("dataset_params.num_classes=2", "its dataset_params is"),
        ("batch_size=6", "its batch_size is 4, but the settings say 6"),
        ("num_samples=8", "its best scores are those of num_samples 4, but the settings say 8"),
        ("sampling.eta=0.5", "its best scores are those of sampling {"),
        ("network_params.base_channels=64", "its network has base_channels 32, but the settings say 64"),
        ("process_params.time_steps=60", "its process has time_steps 50, but the settings say 60"),
        ("process_params.beta_schedule=linear", "its process has beta_schedule cosine, but the settings say linear"),
    ],
)
def test_checkpoint_of_another_training_is_not_resumed(
    half: Path, data_folder: Path, tmp_path: Path, user_module: UserModule, change: str, said: str
) -> None:
    user_module("same_data", SAME_DATA)
    changes = [f"load_from={half}", change]
    if change.startswith("dataset_params"):
        contents = load_checkpoint(half)
        contents["settings"]["dataset_file"] = "same_data"
        save_checkpoint(half, contents)
        changes.append("dataset_file=same_data")
    message = tiny.refusal(ddpm_train.main, tiny.train_argv(data_folder, tmp_path / "run", *changes))
    assert f"load_from: {half} cannot be resumed: {said}" in message
    assert f"init_from={half}" in message
    assert not (tmp_path / "run").exists()


def test_checkpoints_of_another_training_are_not_replaced(
    half: Path, finished_run: Path, data_folder: Path, tmp_path: Path
) -> None:
    before = {path.name: path.read_bytes() for path in half.parent.iterdir()}
    for change in ("seed=1", f"init_from={finished_run}/last.pt", f"load_from={finished_run}/previous.pt"):
        message = tiny.refusal(ddpm_train.main, tiny.train_argv(data_folder, half.parent, change))
        assert f"{half.parent} has the checkpoints of a training, which this one would replace" in message
    assert {path.name: path.read_bytes() for path in half.parent.iterdir()} == before


def test_checkpoint_without_a_newer_setting_of_sampling_is_resumed(half: Path, train: Train) -> None:
    contents = load_checkpoint(half)
    del contents["settings"]["sampling"]["correlation_length"]
    save_checkpoint(half, contents)
    assert train("rest", f"load_from={half}")["step"] == 9


def test_settings_of_a_finished_training_stay_in_its_folder(train: Train, tmp_path: Path) -> None:
    train("run")
    before = (tmp_path / "run" / "params.yml").read_text()
    train("run", "load_from=auto", "optim.learning_rate=0.5")
    assert (tmp_path / "run" / "params.yml").read_text() == before


@pytest.mark.parametrize("change", ["channels_last=false", "precision=bfloat16"])
def test_moments_take_the_memory_layout_of_the_resumed_training(half: Path, train: Train, change: str) -> None:
    """Fused kernels of PyTorch ignore strides, so that moments of another layout would belong to other weights."""
    whole = train("whole", change)
    resumed = train("rest", change, f"load_from={half}")
    expected, found = (
        torch.cat([moments["exp_avg"].flatten() for moments in checkpoint["optimizer"]["state"].values()])
        for checkpoint in (whole, resumed)
    )
    assert (found - expected).norm() < 0.1 * expected.norm()


def test_checkpoint_of_more_data_is_not_resumed(half: Path, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(synthetic, "SPLIT_SIZES", {"train": 20, "val": 4, "test": 4})
        (tmp_path / "data").mkdir()
        argv = tiny.train_argv(tmp_path / "data", tmp_path / "run", f"load_from={half}")
        message = tiny.refusal(ddpm_train.main, argv)
    assert "it was trained on 12 images, but the dataset has 20" in message


def test_data_may_have_moved_when_a_training_is_resumed(half: Path, data_folder: Path, tmp_path: Path) -> None:
    moved = tmp_path / "data"
    moved.symlink_to(data_folder)
    ddpm_train.main(tiny.train_argv(moved, tmp_path / "run", f"load_from={half}"))
    assert load_checkpoint(tmp_path / "run" / "last.pt")["step"] == 9


def test_data_that_was_replaced_is_noticed_when_a_training_is_resumed(
    half: Path, data_folder: Path, tmp_path: Path
) -> None:
    replaced = tmp_path / "data"
    shutil.copytree(data_folder, replaced)
    (path,) = replaced.glob("*.hdf5")
    with h5py.File(path, "r+") as file:
        file["train/labels"][:] = 1 - file["train/labels"][:]
    message = tiny.refusal(ddpm_train.main, tiny.train_argv(replaced, tmp_path / "run", f"load_from={half}"))
    assert "the images or label maps of its dataset have changed since" in message


def test_completed_training_is_resumed_only_with_more_epochs(
    finished_run: Path, data_folder: Path, tmp_path: Path, train: Train
) -> None:
    changes = [f"load_from={finished_run}/last.pt"]
    message = tiny.refusal(ddpm_train.main, tiny.train_argv(data_folder, tmp_path / "run", *changes))
    assert "it has completed its training of 9 steps; only a larger train_for would continue it" in message
    assert f"init_from={finished_run}/last.pt" in message
    assert train("longer", *changes, "train_for=4 epochs")["step"] == 12


@pytest.mark.parametrize("kind", ["official", "without optimiser"])
def test_weights_without_a_state_are_not_resumed(
    finished_run: Path, data_folder: Path, tmp_path: Path, kind: str
) -> None:
    path = official_file(tmp_path / "weights.pt")
    if kind == "without optimiser":
        contents = load_checkpoint(finished_run / "last.pt")
        save_checkpoint(path, {name: contents[name] for name in contents if name != "optimizer"})
    message = tiny.refusal(ddpm_train.main, tiny.train_argv(data_folder, tmp_path / "run", f"load_from={path}"))
    assert "not the state of a training (`optimizer`)" in message
    assert f"init_from={path}" in message


def test_checkpoint_of_format_version_1_is_resumed(half: Path, train: Train) -> None:
    contents = load_checkpoint(half)
    settings = contents["settings"] | {"samples": contents["settings"]["num_samples"]}
    before = {
        name: value for name, value in contents.items() if name not in ("digest", "nonfinite_steps", "num_images")
    }
    before |= {
        "format_version": 1,
        "settings": {name: value for name, value in settings.items() if name != "num_samples"},
        "network": dict(contents["network"]["params"]),
        "process": dict(contents["process"]["params"]),
        "bad_steps": [0, -1, ""],
    }
    for part, name in (
        ("network", "num_states"), ("network", "scale_shift_norm"), ("process", "num_classes"), ("process", "evidence"),
    ):  # fmt: skip
        del before[part][name]
    before["network"]["channel_mult"] = tuple(before["network"]["channel_mult"])
    for part in ("model", "average"):
        before[part] = {name.replace("network.", "unet.", 1): tensor for name, tensor in contents[part].items()}
    old = half.with_name("old.pt")
    torch.save(before, old)
    assert same(*(train(path.stem, f"load_from={path}")["model"] for path in (half, old)))


# ---------------------------------------------------------------- init_from


def test_new_training_starts_from_the_averaged_weights_on_another_dataset(
    finished_run: Path, data_folder: Path, tmp_path: Path, user_module: UserModule
) -> None:
    user_module("same_data", SAME_DATA)
    changes = [f"init_from={finished_run}/last.pt", "dataset_file=same_data", "num_samples=2", "batch_size=2"]
    training = start_training(tiny.train_argv(data_folder, tmp_path / "run", *changes))
    average = load_checkpoint(finished_run / "last.pt")["average"]
    state = training.state.state_dict()
    assert same(dict(state["model"]), dict(average))
    assert same(dict(state["average"]), dict(average))
    assert (state["step"], state["num_averaged"], state["best"]) == (0, 0, {})
    assert state["optimizer"]["state"] == {}
    assert training.state.optimizer.param_groups[0]["lr"] == training.settings.optim.learning_rate


@pytest.mark.parametrize("kind", ["ours", "official"])
def test_network_is_that_of_the_checkpoint_apart_from_dropout(train: Train, tmp_path: Path, kind: str) -> None:
    path = official_file(tmp_path / "weights.pt")
    if kind == "ours":
        train("first", "train_for=1 epoch")
        path = tmp_path / "first" / "last.pt"
    changes = [f"init_from={path}", OTHER_NETWORK, "process_params.time_steps=40"]
    checkpoint = train("second", *changes)
    params = checkpoint["settings"]["network_params"]
    assert (params["channel_mult"], params["dropout"]) == ([1], 0.1)
    assert "num_classes" not in params
    assert checkpoint["network"]["params"]["channel_mult"] == [1]
    assert checkpoint["process"]["params"]["time_steps"] == 40


def test_initialised_training_resumes_from_its_own_folder(half: Path, train: Train) -> None:
    changes = [f"init_from={half}", "load_from=auto", OTHER_NETWORK]
    whole = train("whole", *changes)
    interrupted(train, 6, "parts", *changes)
    parts: dict[str, Any] = train("parts", *changes)
    assert all(same(parts[name], whole[name]) for name in ("step", "model", "average", "num_averaged", "optimizer"))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("dataset_params.num_classes=3", "has 2 classes and images of 1 channels, but same_data has 3 and 1"),
        ("network=my_network", "the network of {path} is models.unet, but the settings say my_network"),
        ("init_from=nowhere.pt", "there is no checkpoint nowhere.pt"),
    ],
)
def test_checkpoint_that_does_not_fit_is_refused(
    half: Path, data_folder: Path, tmp_path: Path, user_module: UserModule, change: str, said: str
) -> None:
    user_module("same_data", SAME_DATA)
    changes = [f"init_from={half}", "dataset_file=same_data", change]
    message = tiny.refusal(ddpm_train.main, tiny.train_argv(data_folder, tmp_path / "run", *changes))
    assert said.format(path=half) in message
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda moments: moments[0].update(exp_avg=torch.zeros(1)), r"optimizer's state 0 .* exp_avg has shape \(1,\)"),
        (lambda moments: moments[0].update(exp_avg_sq=torch.full_like(moments[0]["exp_avg"], math.inf)), "exp_avg_sq"),
        (lambda moments: moments.update({10**6: moments[0]}), "may be damaged"),
    ],
)
def test_damaged_state_of_the_optimizer_is_refused(
    half: Path, data_folder: Path, damage: Callable[[Any], None], said: str
) -> None:
    contents = load_checkpoint(half)
    damage(contents["optimizer"]["state"])
    save_checkpoint(half, contents)
    argv = tiny.train_argv(data_folder, half.parent / "again", f"load_from={half}")
    assert re.search(said, tiny.refusal(ddpm_train.main, argv))
