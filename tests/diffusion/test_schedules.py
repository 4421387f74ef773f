"""Schedules: the formulas by hand, and the properties every table must have."""

import math
import warnings

import pytest
import torch

from diffusion import SCHEDULES, alpha_bar_table
from diffusion.schedules import cosine, linear
from utils.errors import UserError


def test_cosine_has_the_values_of_its_formula() -> None:
    table = cosine(250)
    for t, fraction in ((1, 0.0), (2, 1 / 250), (126, 0.5), (250, 249 / 250)):
        expected = math.cos((fraction + 0.008) / 1.008 * math.pi / 2) ** 2
        assert float(table[t]) == pytest.approx(expected, abs=1e-15)


def test_linear_multiplies_the_signal_kept_at_each_step() -> None:
    table = linear(3)
    assert table.tolist() == pytest.approx([1, 0.99, 0.99 * 0.895, 0.99 * 0.895 * 0.8], abs=1e-15)


@pytest.mark.parametrize("schedule", sorted(SCHEDULES))
@pytest.mark.parametrize("time_steps", [1, 2, 25, 250, 1000])
@pytest.mark.filterwarnings("ignore:alpha_bar_T")
def test_tables_decrease_from_one_and_are_indexed_by_time(schedule: str, time_steps: int) -> None:
    table = alpha_bar_table(schedule, time_steps)
    assert table.shape == (time_steps + 1,)
    assert table.dtype == torch.float64
    assert float(table[0]) == 1
    assert bool((table[1:] < table[:-1]).all())
    assert float(table[-1]) >= 0


@pytest.mark.parametrize("time_steps", [250, 1000])
def test_the_usual_tables_end_in_noise_without_a_warning(time_steps: int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert float(alpha_bar_table("cosine", time_steps)[-1]) < 1e-3


@pytest.mark.parametrize(("schedule", "time_steps"), [("cosine", 10), ("cosine", 1), ("linear", 20)])
def test_signal_left_at_the_end_causes_a_warning(schedule: str, time_steps: int) -> None:
    with pytest.warns(UserWarning, match="still carries signal"):
        assert float(alpha_bar_table(schedule, time_steps)[-1]) > 1e-3


@pytest.mark.parametrize(
    ("schedule", "time_steps", "params", "message"),
    [
        ("cosin", 250, {}, "'cosin'.*cosine, linear"),
        ("cosine", 0, {}, "time_steps is 0"),
        ("cosine", -3, {}, "time_steps is -3"),
        ("cosine", 250, {"schedule": 1.0}, "cosine schedule accepts: s"),
        ("cosine", 250, {"time_steps": 1.0}, "cosine schedule accepts: s"),
        ("shifted", 250, {"b": 1e300}, "cannot be used"),
        ("linear", 250, {"first": 0.0}, "does not decrease"),
        ("linear", 250, {"first": -0.1}, "does not decrease"),
        ("linear", 250, {"last": 1.5}, "does not decrease"),
        ("linear", 250, {"offset": 0.1}, "linear schedule accepts: first, last"),
    ],
)
def test_impossible_schedules_are_refused(
    schedule: str, time_steps: int, params: dict[str, float], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        alpha_bar_table(schedule, time_steps, **params)
