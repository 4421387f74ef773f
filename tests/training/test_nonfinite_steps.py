"""Steps whose loss or gradient is not finite: they change nothing, are counted, and stop a run that has too many."""

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from checkpoints.files import load_checkpoint
from ddpm_train import Training
from tests.conftest import UserModule
from tests.tiny import same
from tests.trainings import Train, batches_of, events
from training.optimisation import NonFiniteSteps
from utils.errors import UserError


def state_of(training: Training) -> list[Any]:
    modules = (training.model.state_dict(), training.average.module.state_dict())
    return copy.deepcopy([*modules, training.optimizer.state_dict()["state"]])


def test_step_on_a_bad_image_changes_nothing_and_is_counted(training: Training) -> None:
    batches = batches_of(training)
    training.train_step(batches[0])
    training.train_step(batches[1])
    before = state_of(training)
    training.train_step(batches[2]._replace(images=torch.full_like(batches[2].images, float("nan"))))
    assert same(state_of(training), before)
    assert training.guard.read() == NonFiniteSteps(1, 3, "loss")
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
    assert training.guard.read() == NonFiniteSteps(1, 2, "gradient")


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
    assert "max_nonfinite_steps is 0" in str(error.value)
    checkpoint = load_checkpoint(tmp_path / "broken" / "bad_step.pt")
    assert checkpoint["step"] == math.ceil(first / 4) * 4
    assert all(tensor.isfinite().all() for tensor in checkpoint["model"].values())


def test_bad_steps_that_are_put_up_with_are_skipped_and_counted(
    training: Training, train: Train, tmp_path: Path, user_module: UserModule
) -> None:
    user_module("broken_lesions", BROKEN)
    number = len(steps_with(5, training))
    checkpoint = train("broken", *ON_BROKEN, "max_nonfinite_steps=100")
    assert checkpoint["step"] == 9
    assert all(tensor.isfinite().all() for part in ("model", "average") for tensor in checkpoint[part].values())
    assert {float(state["step"]) for state in checkpoint["optimizer"]["state"].values()} == {9 - number}
    assert events(tmp_path / "broken").Scalars("train/bad_steps")[-1].value == number
    assert not (tmp_path / "broken" / "bad_step.pt").exists()


def test_one_bad_step_more_than_put_up_with_stops_the_run(train: Train, user_module: UserModule) -> None:
    user_module("broken_lesions", BROKEN)
    with pytest.raises(UserError, match=r"2 steps had no finite loss or gradient\..*max_nonfinite_steps is 1"):
        train("broken", *ON_BROKEN, "max_nonfinite_steps=1", "display_freq=1")
