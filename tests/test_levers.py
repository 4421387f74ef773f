"""Settings that change how a training is computed, and not what it computes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from datasets.loading import training_batches
from ddpm_train import Training
from tests import tiny
from utils.checkpoint import load_checkpoint
from utils.config import load_settings
from utils.schema import TrainSettings

Train = Callable[..., dict[str, Any]]


def gradients(data_folder: Path, folder: Path, *changes: str) -> torch.Tensor:
    """All gradients of the first step of a training."""
    training = Training(load_settings(TrainSettings, tiny.train_argv(data_folder, folder, *changes), default_file=""))
    last = training.model.unet.out[-1].weight
    with torch.no_grad():
        last.copy_(torch.randn(last.shape, generator=torch.Generator().manual_seed(0)))
    (batch,) = training_batches(training.data, [], training.settings.batch_size, 0, 1, seed=0, workers=0)
    training.train_step(batch)
    return torch.cat([p.grad.flatten() for p in training.model.parameters() if p.grad is not None])


@pytest.mark.parametrize(
    "change", ["gradient_accumulation=2", "gradient_accumulation=99", "use_checkpoint=true", "channels_last=false"]
)
def test_gradients_are_the_same_but_for_rounding(data_folder: Path, tmp_path: Path, change: str) -> None:
    whole = gradients(data_folder, tmp_path / "whole")
    assert (gradients(data_folder, tmp_path / "other", change) - whole).norm() <= 1e-5 * whole.norm()


def test_run_keeps_what_was_chosen(finished_run: Path) -> None:
    settings = load_checkpoint(finished_run / "last.pt")["settings"]
    assert settings["precision"] in ("float32", "bfloat16")
    assert settings["compile"] is False
    assert settings["channels_last"] is True


def test_layout_may_change_when_a_training_goes_on(train: Train, tmp_path: Path) -> None:
    train("first", "max_epochs=2")
    go_on = f"load_from={tmp_path}/first/last.pt"
    one, other = (train(name, go_on, f"channels_last={name}")["model"] for name in ("true", "false"))
    for name, weights in one.items():
        torch.testing.assert_close(other[name], weights, rtol=1e-3, atol=1e-3, msg=name)


def test_training_in_bfloat16_ends_with_finite_weights(train: Train) -> None:
    weights = train("half", "precision=bfloat16")["model"]
    assert all(tensor.dtype != torch.bfloat16 and tensor.isfinite().all() for tensor in weights.values())
