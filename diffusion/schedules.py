"""Noise schedules: tables of alpha-bar, from which everything else about a process is derived.

A table has T + 1 entries and is indexed by the time itself: entry 0 is 1 (the data), entry T is close to 0 (noise). A
new schedule is a function of T (and its own parameters) and a line in `SCHEDULES`.
"""

import inspect
import math
import warnings
from collections.abc import Callable

import torch
from torch import Tensor

from utils.errors import UserError

_SIGNAL_LEFT = 1e-3


def cosine(time_steps: int, s: float = 0.008) -> Tensor:
    """abar_t = cos^2( ((t-1)/T + s) / (1+s) * pi/2 ) for t >= 1, and abar_0 = 1.

    The table of the official CCDM code, with which the released weights were trained. It lags the paper's Eq. 5
    (Nichol and Dhariwal 2021, Eq. 17) by one step.
    """
    t = torch.arange(time_steps, dtype=torch.float64)
    angle = (t / time_steps + s) / (1 + s) * (math.pi / 2)
    return torch.cat([torch.ones(1, dtype=torch.float64), torch.cos(angle) ** 2])


def linear(time_steps: int, first: float = 0.01, last: float = 0.2) -> Tensor:
    """abar_t = prod_{i <= t} (1 - beta_i) with beta evenly spaced from `first` to `last` (paper, supplement)."""
    beta = torch.linspace(first, last, time_steps, dtype=torch.float64)
    return torch.cat([torch.ones(1, dtype=torch.float64), torch.cumprod(1 - beta, dim=0)])


def shifted(time_steps: int, b: float = 0.5, s: float = 0.008) -> Tensor:
    """`cosine` with the signal level abar replaced by b abar / sqrt(1 - abar^2 + b^2 abar^2).

    b < 1 moves steps to higher noise levels, as larger images need (Hoogeboom et al., *Simple Diffusion*, 2023: a shift
    of the logarithmic signal-to-noise ratio, here with abar as the amplitude of the signal).
    """
    table = cosine(time_steps, s)
    return b * table / (1 - table**2 + b**2 * table**2).sqrt()


SCHEDULES: dict[str, Callable[..., Tensor]] = {"cosine": cosine, "linear": linear, "shifted": shifted}


def alpha_bar_table(schedule: str, time_steps: int, /, **settings: float) -> Tensor:
    """The table of the named schedule: float64 of shape T + 1.

    Raises:
        UserError: for an unknown schedule, fewer than one step, or settings that give no decreasing table in (0, 1].
    """
    if schedule not in SCHEDULES:
        raise UserError(f"unknown schedule {schedule!r}; choose from: {', '.join(SCHEDULES)}")
    if time_steps < 1:
        raise UserError(f"time_steps is {time_steps}; a process needs at least 1 step")
    try:
        inspect.signature(SCHEDULES[schedule]).bind(time_steps, **settings)
    except TypeError as error:
        accepted = ", ".join(list(inspect.signature(SCHEDULES[schedule]).parameters)[1:])
        raise UserError(f"beta_schedule_params: {error}; the {schedule} schedule accepts: {accepted}") from error
    try:
        table = SCHEDULES[schedule](time_steps, **settings)
    except ArithmeticError as error:
        raise UserError(f"beta_schedule_params: {settings} cannot be used: {error}") from error
    if not bool((table[1:] < table[:-1]).all()) or float(table[-1]) < 0:
        raise UserError(f"the {schedule} schedule with {time_steps} steps and {settings} does not decrease from 1 to 0")
    if float(table[-1]) > _SIGNAL_LEFT:
        warnings.warn(
            f"alpha_bar_T = {float(table[-1]):.2g} with {time_steps} steps: x_T still carries signal that sampling, "
            f"which starts from pure noise, does not have; use more time steps",
            stacklevel=2,
        )
    return table
