"""Steps whose loss or gradient is not finite: they change nothing, are counted, and end a run that has too many."""

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from checkpoints.files import load_checkpoint
from datasets.loading import TrainingBatch
from tests import tiny
from tests.conftest import UserModule
from tests.tiny import same
from tests.trainings import StartedTraining, Train, before_step, events, start_training
from training.nonfinite import NonFiniteGuard, NonFiniteSteps, SpikeWatch
from utils.errors import UserError


def weights_of(training: StartedTraining) -> list[Any]:
    state = training.state.state_dict()
    return copy.deepcopy([state["model"], state["average"], state["num_averaged"], state["optimizer"]["state"]])


def with_nan(batch: TrainingBatch) -> TrainingBatch:
    return batch._replace(images=torch.full_like(batch.images, float("nan")))


def nonfinite_step(training: StartedTraining, batch: TrainingBatch, quantity: str) -> None:
    """A step whose loss, or only a gradient, is not finite."""
    if quantity == "loss":
        assert not training.step(with_nan(batch)).isfinite()
        return
    hook = next(training.state.model.parameters()).register_hook(lambda gradient: gradient.fill_(float("inf")))
    assert training.step(batch).isfinite()
    hook.remove()


@pytest.mark.parametrize("quantity", ["loss", "gradient"])
@pytest.mark.parametrize("steps_before", [0, 2])
def test_nonfinite_step_changes_nothing_and_is_counted(
    training: StartedTraining, quantity: str, steps_before: int
) -> None:
    batches = training.batches
    for batch in batches[:steps_before]:
        training.step(batch)
    before = weights_of(training)
    nonfinite_step(training, batches[steps_before], quantity)
    changed = weights_of(training)
    if steps_before == 0:  # Adam creates its state in the first step
        assert {float(state["step"]) for state in changed.pop().values()} == {0.0}
        before.pop()
    assert same(changed, before)
    assert training.state.guard.read() == NonFiniteSteps(1, steps_before + 1, quantity)
    training.step(batches[steps_before + 1])
    assert not same(weights_of(training)[:2], before[:2])
    assert all(tensor.isfinite().all() for tensor in training.state.model.state_dict().values())


def test_guard_remembers_the_first_of_several(training: StartedTraining) -> None:
    batches = training.batches
    training.step(batches[0])
    assert training.state.guard.read() == NonFiniteSteps()
    nonfinite_step(training, batches[1], "gradient")
    nonfinite_step(training, batches[2], "loss")
    assert training.state.guard.read() == NonFiniteSteps(2, 2, "gradient")
    guard = NonFiniteGuard(torch.device("cpu"))
    guard.restore(training.state.guard.read())
    assert guard.read() == NonFiniteSteps(2, 2, "gradient")


def test_clipped_gradients_have_the_largest_norm_that_is_allowed(training: StartedTraining) -> None:
    optim = training.settings.optim.model_copy(update={"max_grad_norm": 1e-3})
    clipping = training._replace(settings=training.settings.model_copy(update={"optim": optim}))
    clipping.step(training.batches[0])
    gradients = [p.grad for p in training.state.model.parameters() if p.grad is not None]
    assert float(torch.nn.utils.get_total_norm(gradients)) == pytest.approx(1e-3, rel=1e-3)


def test_run_ends_at_the_next_log_line_and_its_checkpoint_can_be_resumed(train: Train, tmp_path: Path) -> None:
    changes = ["display_freq=4", "validation_freq=100"]
    with pytest.MonkeyPatch.context() as patch:
        before_step(patch, 2, with_nan)
        with pytest.raises(UserError) as error:
            train("run", *changes)
    path = tmp_path / "run" / "nonfinite_step.pt"
    assert "the first was step 3, where the loss was not finite" in str(error.value)
    assert "max_nonfinite_steps is 0" in str(error.value)
    assert f"load_from={path}" in str(error.value)
    checkpoint = load_checkpoint(path)
    assert checkpoint["step"] == 4
    assert all(tensor.isfinite().all() for tensor in checkpoint["model"].values())
    assert train("rest", *changes, f"load_from={path}")["step"] == 9


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


def test_tolerated_steps_are_skipped_and_counted(
    training: StartedTraining, train: Train, tmp_path: Path, user_module: UserModule
) -> None:
    user_module("broken_lesions", BROKEN)
    number = sum(5 in batch.indices for batch in training.batches)
    checkpoint = train("broken", *ON_BROKEN, "max_nonfinite_steps=100")
    assert checkpoint["step"] == 9
    assert all(tensor.isfinite().all() for part in ("model", "average") for tensor in checkpoint[part].values())
    assert {float(state["step"]) for state in checkpoint["optimizer"]["state"].values()} == {9 - number}
    assert checkpoint["num_averaged"] == 9 - number
    assert events(tmp_path / "broken").Scalars("train/nonfinite_steps")[-1].value == number
    assert not (tmp_path / "broken" / "nonfinite_step.pt").exists()


NORMALISED = """
from torch import nn
from models import unet

class Normalised(nn.Module):
    def __init__(self, network):
        super().__init__()
        self.network, self.norm = network, nn.BatchNorm2d(1)
    def forward(self, x_t, t, images):
        return self.network(x_t, t, self.norm(images))

def get_network(**params):
    return Normalised(unet.get_network(**params))
"""


def test_statistics_of_skipped_steps_are_undone(data_folder: Path, tmp_path: Path, user_module: UserModule) -> None:
    user_module("normalised", NORMALISED)
    training = start_training(tiny.train_argv(data_folder, tmp_path / "run", "network=normalised"))
    first, second, *_ = training.batches
    start = weights_of(training)
    training.step(first)
    before = weights_of(training)
    name = "network.norm.running_mean"
    assert not torch.equal(start[0][name], before[0][name])
    training.step(with_nan(second))
    after = weights_of(training)
    assert torch.equal(after[0][name], before[0][name])
    assert torch.equal(after[1][name], before[1][name])


def test_one_step_more_than_tolerated_ends_the_run(train: Train, user_module: UserModule) -> None:
    user_module("broken_lesions", BROKEN)
    with pytest.raises(UserError, match=r"2 steps had no finite loss or gradient.*max_nonfinite_steps is 1"):
        train("broken", *ON_BROKEN, "max_nonfinite_steps=1", "display_freq=1")


def test_loss_far_above_its_running_median_is_reported_with_its_step() -> None:
    watch = SpikeWatch()
    assert watch.check([9.0, 1.0] * 5, 10) == []  # too few to tell
    assert watch.check([1.0] * 30, 40) == []
    assert watch.check([4.9, math.nan, math.inf, 5.1, 1.0], 45) == [
        "step 44: the loss is 5.1, far above its running median 1"
    ]
