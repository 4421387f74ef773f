"""The learning rate over a training."""

import pytest
import torch

from training.optimisation import LearningRateDecay, OptimSettings
from training.schedule import Schedule
from training.settings import TrainSettings


def optim(**params: object) -> OptimSettings:
    return OptimSettings(learning_rate=3.0, lr_params=LearningRateDecay(**{"min_lr": 1.0, **params}))


@pytest.mark.parametrize("decay", ["polynomial", "cosine"])
def test_decay_begins_at_the_start_and_ends_at_the_floor(decay: str) -> None:
    assert [optim(decay=decay).rate(progress) for progress in (0.0, 1.0)] == [3.0, 1.0]


@pytest.mark.parametrize(("power", "share"), [(1.0, 0.75), (2.0, 0.5625), (0.5, 0.75**0.5)])
def test_polynomial_decay_is_a_power_of_what_remains(power: float, share: float) -> None:
    assert optim(power=power).rate(0.25) == pytest.approx(1 + 2 * share, rel=1e-12)


def test_power_1_is_linear() -> None:
    rates = torch.tensor([optim().rate(k / 10) for k in range(11)], dtype=torch.float64)
    assert torch.allclose(rates.diff(), torch.full((10,), -0.2, dtype=torch.float64), atol=1e-15)


def test_cosine_decay_is_symmetric_about_the_middle() -> None:
    rates = [optim(decay="cosine").rate(progress) for progress in (0.25, 0.5, 0.75)]
    assert rates == pytest.approx([2 + 0.5**0.5, 2, 2 - 0.5**0.5])


def test_warmup_rises_linearly_to_the_decay() -> None:
    warm = optim(warmup=0.2)
    assert [warm.rate(progress) for progress in (0.0, 0.1, 0.2, 0.5)] == pytest.approx([0, 1.4, 2.6, 2.0])


def test_everything_follows_from_the_length() -> None:
    short, long = (
        Schedule(TrainSettings(train_for=length, batch_size=10), num_images=100)
        for length in ("20 epochs", "20000 images")
    )
    assert (short.total_steps, short.validation_freq, short.display_freq) == (200, 50, 2)
    assert (long.total_steps, long.validation_freq, long.display_freq) == (2000, 500, 20)
    assert short.learning_rate(50) == long.learning_rate(500)
    ages = [schedule.ema_decay / (1 - schedule.ema_decay) for schedule in (short, long)]
    assert ages == pytest.approx([20, 200])


def test_what_is_set_is_kept() -> None:
    settings = TrainSettings(train_for="50 steps", validation_freq=7, display_freq=3, polyak_alpha=0.5)
    schedule = Schedule(settings, num_images=100)
    assert (schedule.validation_freq, schedule.display_freq, schedule.ema_decay) == (7, 3, 0.5)
