"""The decay of the learning rate."""

import pytest
import torch

from training.optimisation import polynomial_decay


def test_decay_begins_at_the_start_and_ends_at_the_floor() -> None:
    assert polynomial_decay(0, 100, 1e-3, 1e-5, 1.0) == pytest.approx(1e-3, rel=1e-12)
    assert polynomial_decay(100, 100, 1e-3, 1e-5, 1.0) == 1e-5
    assert polynomial_decay(250, 100, 1e-3, 1e-5, 1.0) == 1e-5


@pytest.mark.parametrize(("power", "share"), [(1.0, 0.75), (2.0, 0.5625), (0.5, 0.75**0.5)])
def test_decay_is_a_power_of_the_remaining_share_of_steps(power: float, share: float) -> None:
    assert polynomial_decay(25, 100, 3.0, 1.0, power) == pytest.approx(1 + 2 * share, rel=1e-12)


def test_power_1_is_linear() -> None:
    rates = torch.tensor([polynomial_decay(step, 10, 1.0, 0.5, 1.0) for step in range(11)], dtype=torch.float64)
    assert torch.allclose(rates.diff(), torch.full((10,), -0.05, dtype=torch.float64), atol=1e-15)
