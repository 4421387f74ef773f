"""The average of the weights: its definition, and what a checkpoint restores."""

import pytest
import torch
from torch import Tensor, nn

from tests import tiny
from tests.tiny import same
from training.ema import ExponentialMovingAverage

TAKE, SKIP = torch.tensor(0.0), torch.tensor(1.0)


def scalar(value: float) -> nn.Linear:
    layer = nn.Linear(1, 1, bias=False).double()
    nn.init.constant_(layer.weight, value)
    return layer


def averages(
    decay: float, weights: list[float], skips: list[Tensor] | None = None, start: float = -100.0
) -> list[float]:
    """The average after each step of a model that starts with another weight."""
    model = scalar(start)
    average, found = ExponentialMovingAverage(model, decay), []  # type: ignore[arg-type]
    for weight, skip in zip(weights, skips or [TAKE] * len(weights), strict=True):
        nn.init.constant_(model.weight, weight)
        average.update(model, skip)  # type: ignore[arg-type]
        found.append(average.model.weight.item())
    return found


@pytest.mark.parametrize("decay", [0.0, 0.3, 0.99, 0.9999])
def test_weights_of_step_i_count_in_proportion_to_decay_to_the_power_of_their_age(decay: float) -> None:
    weights = [float(torch.sin(torch.tensor(1.3 * step))) for step in range(40)]
    for n, average in enumerate(averages(decay, weights), 1):
        shares = torch.tensor([decay ** (n - i) for i in range(1, n + 1)], dtype=torch.float64)
        expected = float((shares * torch.tensor(weights[:n], dtype=torch.float64)).sum() / shares.sum())
        assert average == pytest.approx(expected, abs=1e-12)


def test_skipped_steps_change_neither_the_average_nor_later_ones() -> None:
    undisturbed = averages(0.8, [1.0, 2.0, 3.0])
    disturbed = averages(0.8, [0.0, 1.0, 7.0, 2.0, 3.0], [SKIP, TAKE, SKIP, TAKE, TAKE])
    expected = [-100.0, undisturbed[0], undisturbed[0], undisturbed[1], undisturbed[2]]
    assert disturbed == pytest.approx(expected, abs=1e-12)


def test_average_of_constant_weights_is_exactly_these() -> None:
    assert averages(0.99, [0.7] * 30, start=0.7) == [0.7] * 30


def test_average_continues_from_its_entries_in_a_checkpoint() -> None:
    model = tiny.model()
    whole, half = (ExponentialMovingAverage(model, 0.9) for _ in range(2))
    for step in range(6):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter += 0.1
        whole.update(model, TAKE)
        if step == 2:
            half.load_state_dict({**whole.state_dict(), "other": "entries"})
        elif step > 2:
            half.update(model, TAKE)
    assert whole.state_dict()["num_averaged"] == 6
    assert type(whole.state_dict()["num_averaged"]) is int
    assert same(half.state_dict(), whole.state_dict())


def test_average_is_not_trained_and_does_not_drop_out() -> None:
    average = ExponentialMovingAverage(tiny.model().train(), 0.9).model
    assert not average.training
    assert not any(parameter.requires_grad for parameter in average.parameters())


def test_update_does_not_wait_for_the_device() -> None:
    model = tiny.model().to("meta")  # reading a value from a meta tensor is an error
    ExponentialMovingAverage(model, 0.9).update(model, SKIP.to("meta"))
