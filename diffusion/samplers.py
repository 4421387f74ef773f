"""From noise to a label map: time grids, the two kinds of step, and the loop."""

import itertools
from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from diffusion.uniform import UniformDiffusion, at_least_float32
from utils.errors import UserError
from utils.noise import derive_key, exponential, uniform

Denoiser = Callable[[Tensor, Tensor], Tensor]
"""Maps label maps x_t (B x H x W) and times t (B) to logits of p(x_0 | x_t) (B x C x H x W)."""

Posterior = Callable[[UniformDiffusion, Tensor, Tensor, Tensor, Tensor, float], Tensor]

LastStep = Literal["argmax", "draw"]


def ancestral(process: UniformDiffusion, p: Tensor, x_t: Tensor, t: Tensor, s: Tensor, eta: float) -> Tensor:
    """The exact reverse step for any s < t (paper, Eq. 12). It has no eta."""
    return process.p_posterior(p, x_t, t, s)


def ddim(process: UniformDiffusion, p: Tensor, x_t: Tensor, t: Tensor, s: Tensor, eta: float) -> Tensor:
    """The step that keeps x_t where it can (Song et al. 2021, appendix A).

    eta = 1 redraws every pixel. With correlated pixels only eta = 0 tends to their joint distribution as steps are
    added; any eta > 0 redraws so much that an error stays.
    """
    return process.ddim_posterior(p, x_t, t, s, eta)


SAMPLERS: dict[str, Posterior] = {"ancestral": ancestral, "ddim": ddim}


def time_grid(alpha_bar: Tensor, steps: int) -> list[int]:
    """T = t_0 > t_1 > ... > t_K = 0 in K = `steps` jumps, each over the same part of the angle arccos(abar_t).

    Near T, where little is decided, jumps are longer than near 0. With the exact denoiser of a joint distribution, and
    with trained ones, samples of few steps are closer to the truth than on a grid that is even in t. All T steps visit
    every time, whatever the table.

    Args:
        alpha_bar: table of T + 1 values, see `diffusion.schedules`.
        steps: K, 1 to T.

    Raises:
        UserError: unless 1 <= steps <= T.
    """
    last = len(alpha_bar) - 1
    if not 1 <= steps <= last:
        raise UserError(f"{steps} sampling steps asked for; the process has {last}: take 1 to {last}")
    angle = alpha_bar.double().arccos()
    even = torch.linspace(float(angle[-1]), 0, steps + 1, dtype=torch.float64)
    grid: list[int] = (angle[:, None] - even).abs().argmin(0).tolist()
    grid[0], grid[-1] = last, 0
    for k in range(steps - 1, 0, -1):
        grid[k] = max(grid[k], grid[k + 1] + 1)
    return [min(t, last - k) for k, t in enumerate(grid)]


class Step(NamedTuple):
    """What the loop knows after a step from t to s."""

    s: int
    x_s: Tensor
    probabilities: Tensor


def reverse_process(
    process: UniformDiffusion,
    denoiser: Denoiser,
    keys: Tensor,
    shape: tuple[int, int],
    *,
    steps: int,
    sampler: str = "ancestral",
    eta: float = 0.0,
    last_step: LastStep = "argmax",
) -> Iterator[Step]:
    """Run the chain from uniform noise at T down to 0 and yield every step, the finished label map last.

    Args:
        denoiser: the network with its image bound to it.
        keys: int64 of shape B, one per label map; all noise is a function of (key, time, pixel, class).
        shape: H, W.
        steps: number of steps K, 1 to T.
        sampler: "ancestral" or "ddim"; `eta` belongs to ddim.
        last_step: the label map at s = 0 is the arg max of the last step's probabilities, or a draw from them.

    Yields:
        `Step`: the time reached, the label maps there (B x H x W, uint8) and the probabilities they were drawn from.

    Raises:
        UserError: for a sampler or last step that does not exist, an impossible number of steps, or eta outside [0, 1].
    """
    if sampler not in SAMPLERS:
        raise UserError(f"unknown sampler {sampler!r}; there are: {', '.join(SAMPLERS)}")
    if last_step not in get_args(LastStep):
        raise UserError(f"unknown last_step {last_step!r}; there are: {', '.join(get_args(LastStep))}")
    if not 0 <= eta <= 1:
        raise UserError(f"eta is {eta}; it lies between 0 and 1")
    grid = time_grid(process.alpha_bar_cpu, steps)
    return _run_chain(process, denoiser, keys, shape, grid, SAMPLERS[sampler], eta, last_step)


def _run_chain(
    process: UniformDiffusion,
    denoiser: Denoiser,
    keys: Tensor,
    shape: tuple[int, int],
    grid: list[int],
    posterior: Posterior,
    eta: float,
    last_step: LastStep,
) -> Iterator[Step]:
    x = uniform(derive_key(keys, "x_T"), shape).mul_(process.num_classes).to(torch.uint8)
    for time, next_time in itertools.pairwise(grid):
        t, s = (torch.full_like(keys, value) for value in (time, next_time))
        p_x_0 = at_least_float32(denoiser(x, t)).softmax(1)
        probabilities = posterior(process, p_x_0, x, t, s, eta)
        if next_time == 0 and last_step == "argmax":
            x = probabilities.argmax(1).to(torch.uint8)
        else:
            x = draw(probabilities, derive_key(keys, next_time))
        yield Step(next_time, x, probabilities)


def draw(probabilities: Tensor, keys: Tensor) -> Tensor:
    """One class per pixel from B x C x H x W probabilities with the noise of `keys` (B): B x H x W, uint8.

    An exponential race, which is the Gumbel-max trick without its logarithm.
    """
    race = exponential(keys, tuple(probabilities.shape[1:])).to(probabilities.dtype)
    return (probabilities / race).argmax(1).to(torch.uint8)
