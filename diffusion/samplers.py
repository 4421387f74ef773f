"""Sampling: time grids, the distributions that one step can draw from, and the loop from noise to a label map.

A new sampler is a function that returns the distribution of x_s, and a line in `SAMPLERS`.
"""

import itertools
from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike
from pydantic import Field
from torch import Tensor

from diffusion.process import Process, at_least_float32, per_pixel
from utils.config import Config, Positive, choice_of
from utils.errors import UserError
from utils.noise import correlated_exponential, derive_key, exponential

Denoiser = Callable[[Tensor, Tensor], Tensor]
"""Maps label maps x_t (B x H x W) and times t (B) to logits of p(x_0 | x_t) (B x C x H x W)."""

StepDistribution = Callable[[Process, Tensor, Tensor, Tensor, Tensor, Tensor, "SamplingConfig"], Tensor]
"""Maps (process, p(x_0 | x_t), x_t, t, s, keys, sampling) to the probabilities of x_s (B x num_states x H x W); `keys`
(int64, B) are those of the step's noise."""

DEFAULT_STEPS = 10

_CORRELATED_BELOW = 0.5


def ancestral(
    process: Process, p: Tensor, x_t: Tensor, t: Tensor, s: Tensor, keys: Tensor, sampling: "SamplingConfig"
) -> Tensor:
    """The exact reverse step for any s < t (paper, Eq. 12); keys and sampling are not used."""
    return process.p_posterior(p, x_t, t, s)


def coherent(
    process: Process, p: Tensor, x_t: Tensor, t: Tensor, s: Tensor, keys: Tensor, sampling: "SamplingConfig"
) -> Tensor:
    """`ancestral`, but while abar_t < 0.5, x_0 is drawn from p with noise that is correlated between pixels, and x_s
    from q(x_s | x_t, x_0); not for a last step that takes the arg max.

    Every pixel keeps the distribution that p gives it. Pixels that are closer than `correlation_length` and have
    similar p agree, so that few steps show an object as a whole or not at all. With many steps, few pixels change at
    once, so that both samplers converge to the joint distribution.
    """
    _, *shape = p.shape
    draws = process.alpha_bar[t] < _CORRELATED_BELOW
    if sampling.last_step == "argmax":
        draws &= s > 0
    race = correlated_exponential(derive_key(keys, "x_0"), shape, sampling.correlation_length).to(p.dtype)
    x_0 = one_hot_of_most_probable(p / race)
    p = torch.where(per_pixel(draws, torch.bool), x_0, p)
    return process.p_posterior(p, x_t, t, s)


def ddim(
    process: Process, p: Tensor, x_t: Tensor, t: Tensor, s: Tensor, keys: Tensor, sampling: "SamplingConfig"
) -> Tensor:
    """The step that keeps x_t where it can (Song et al. 2021, appendix A).

    eta = 1 redraws every pixel. With correlated pixels only eta = 0 converges to the joint distribution as steps are
    added; any eta > 0 redraws so much that an error remains.
    """
    return process.ddim_posterior(p, x_t, t, s, sampling.eta)


SAMPLERS: dict[str, StepDistribution] = {"ancestral": ancestral, "coherent": coherent, "ddim": ddim}


def time_grid(alpha_bar: ArrayLike, steps: int) -> list[int]:
    """T = t_0 > t_1 > ... > t_K = 0 in K = `steps` jumps, each over the same part of sqrt(abar_t).

    Whether an object of N pixels is there shows in x_t from an abar of about 1 / sqrt(N) on, so a grid for objects of
    any size has short jumps near T and long ones near 0. With K = T it visits every time, for any table.

    Args:
        alpha_bar: table of T + 1 values, see `diffusion.schedules`.
        steps: K, 1 to T.

    Raises:
        UserError: unless 1 <= steps <= T.
    """
    root = np.sqrt(np.asarray(alpha_bar, dtype=np.float64))
    last = len(root) - 1
    if not 1 <= steps <= last:
        raise UserError(f"{steps} sampling steps requested, but the process has {last}; choose 1 to {last}")
    even = np.linspace(root[-1], 1, steps + 1)
    grid = [int(np.abs(root - place).argmin()) for place in even]
    grid[0], grid[-1] = last, 0
    for k in range(steps - 1, 0, -1):
        grid[k] = max(grid[k], grid[k + 1] + 1)
    return [min(t, last - k) for k, t in enumerate(grid)]


class SamplingConfig(Config):
    """How label maps are sampled."""

    steps: Positive | None = Field(
        None,
        description=f"steps of the sampler; `null`: {DEFAULT_STEPS}, or all of a process that has fewer; ignored by a "
        "process of one step",
    )
    sampler: choice_of(SAMPLERS) = Field("coherent", description="distribution that each step draws from")  # type: ignore[valid-type]
    eta: float = Field(0.0, ge=0, le=1, description="ddim only: 0 keeps most pixels, 1 redraws all")
    correlation_length: float = Field(
        24.0, gt=0, le=1e6, description="coherent only: pixels over which noise is correlated, the size of objects"
    )
    last_step: Literal["argmax", "draw"] | None = Field(
        None,
        description="how the last step's probabilities become a label map; `null`: argmax, or draw if it is the only "
        "step, as of a classifier",
    )

    def resolve(self, process: Process) -> "SamplingConfig":
        """Fill in the defaults that depend on the process.

        Raises:
            UserError: if more steps are requested than the process has.
        """
        steps = min(DEFAULT_STEPS, process.time_steps)
        if self.steps is not None and process.time_steps > 1:
            steps = self.steps
        if steps > process.time_steps:
            raise UserError(f"{steps} sampling steps requested, but the process has {process.time_steps} time steps")
        last_step = self.last_step or ("draw" if steps == 1 else "argmax")
        return self.model_copy(update={"steps": steps, "last_step": last_step})


class Step(NamedTuple):
    """The state of the reverse process after a step from t to s."""

    s: int
    x_s: Tensor
    probabilities: Tensor


def reverse_process(
    process: Process, denoiser: Denoiser, keys: Tensor, shape: tuple[int, int], sampling: SamplingConfig
) -> Iterator[Step]:
    """Run the process from noise at T down to 0 and yield every step, the finished label map last.

    Args:
        denoiser: the network with its image bound to it.
        keys: int64 of shape B, one per label map; all noise is a function of (key, time, pixel, class).
        shape: H, W.

    Yields:
        `Step`: the time reached, the label maps at that time (B x H x W, uint8), and the probabilities that they were
        drawn from (B x num_states x H x W), or at time 0 p(x_0 | x_t), whatever the sampler.

    Raises:
        UserError: if more steps are requested than the process has.
    """
    sampling = sampling.resolve(process)
    assert sampling.steps is not None
    return _run(process, denoiser, keys, shape, time_grid(process.alpha_bar_cpu, sampling.steps), sampling)


def prior_sample(process: Process, keys: Tensor, shape: tuple[int, int]) -> Tensor:
    """The x_T that `reverse_process` starts from: B x H x W, uint8."""
    return process.sample_prior(derive_key(keys, "x_T"), shape)


def _run(
    process: Process,
    denoiser: Denoiser,
    keys: Tensor,
    shape: tuple[int, int],
    grid: list[int],
    sampling: SamplingConfig,
) -> Iterator[Step]:
    step_distribution = SAMPLERS[sampling.sampler]
    x = prior_sample(process, keys, shape)
    for time, next_time in itertools.pairwise(grid):
        t, s = (torch.full_like(keys, value) for value in (time, next_time))
        p_x_0 = at_least_float32(denoiser(x, t)).softmax(1)
        step_keys = derive_key(keys, next_time)
        probabilities = step_distribution(process, p_x_0, x, t, s, step_keys, sampling)
        if next_time > 0:
            x = draw(probabilities, step_keys)
        elif sampling.last_step == "argmax":
            x = most_probable(probabilities)
        else:  # the probabilities of `coherent` depend on its noise, unlike those of which it takes the arg max
            sampling, x_t, x = sampling.model_copy(update={"last_step": "argmax"}), x, draw(probabilities, step_keys)
            probabilities = step_distribution(process, p_x_0, x_t, t, s, step_keys, sampling)
        yield Step(next_time, x, probabilities)


def draw(probabilities: Tensor, keys: Tensor) -> Tensor:
    """Draw one class per pixel from B x C x H x W probabilities with the noise of `keys` (B): B x H x W, uint8.

    An exponential race, which is the Gumbel-max trick without its logarithm.
    """
    race = exponential(keys, tuple(probabilities.shape[1:])).to(probabilities.dtype)
    return most_probable(probabilities / race)


def most_probable(probabilities: Tensor) -> Tensor:
    """The class of the largest value per pixel, the first one of equal ones: B x C x H x W -> B x H x W, uint8."""
    return probabilities.max(1).indices.to(torch.uint8)  # on CPUs 4 to 20 times faster than argmax


def one_hot_of_most_probable(probabilities: Tensor) -> Tensor:
    """`most_probable`, one-hot, in the shape and dtype of the probabilities."""
    return torch.zeros_like(probabilities).scatter_(1, probabilities.max(1, keepdim=True).indices, 1)
