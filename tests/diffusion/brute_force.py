"""The uniform process written out with C x C transition matrices and joint states: slow, but plainly the definition.

Rows are where a step comes from, columns where it goes to.
"""

import itertools
import math
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from scipy import stats
from torch import Tensor

from diffusion import SAMPLERS, Process, SamplingConfig, UniformDiffusion, alpha_bar_table

CLASSES = (2, 3, 20)
T = 12
_LAST = 0.001

Predict = Callable[[Tensor, int], Tensor]
"""Maps S states (S x N) and a time to p(x_0 | x_t) of every pixel (S x C x N)."""


def process(num_classes: int, time_steps: int = T) -> UniformDiffusion:
    """A cosine process; with few steps, a table that also ends in noise."""
    if time_steps >= 100:
        return UniformDiffusion(num_classes, alpha_bar_table("cosine", time_steps))
    return UniformDiffusion(num_classes, torch.linspace(1, _LAST**0.5, time_steps + 1, dtype=torch.float64) ** 2)


def step_matrix(process: UniformDiffusion, t: int) -> Tensor:
    """q(x_t | x_{t-1}): C x C."""
    alpha = process.alpha_bar[t] / process.alpha_bar[t - 1]
    num_classes = process.num_classes
    return alpha * torch.eye(num_classes, dtype=torch.float64) + (1 - alpha) / num_classes


def forward_matrix(process: UniformDiffusion, s: int, t: int) -> Tensor:
    """q(x_t | x_s): the product of the one-step matrices in between."""
    matrix = torch.eye(process.num_classes, dtype=torch.float64)
    for time in range(s + 1, t + 1):
        matrix = matrix @ step_matrix(process, time)
    return matrix


def posterior(process: UniformDiffusion, t: int, s: int) -> Tensor:
    """q(x_s = k | x_t, x_0) by Bayes' rule, as [k, x_t, x_0]."""
    to_s, s_to_t = forward_matrix(process, 0, s), forward_matrix(process, s, t)
    joint = to_s.T[:, None, :] * s_to_t[:, :, None]
    return joint / forward_matrix(process, 0, t).T


def explicit_kl(process: UniformDiffusion, logits: Tensor, x_t: Tensor, x_0: Tensor, t: int) -> Tensor:
    """KL( q(x_{t-1} | x_t, x_0) || sum over x_0 of q(x_{t-1} | x_t, x_0) softmax(logits) ) per pixel."""
    table = posterior(process, t, t - 1)
    q = table[:, x_t, x_0].movedim(0, 1)
    p = torch.einsum("kbhwc,bchw->bkhw", table[:, x_t], logits.softmax(1))
    return (torch.xlogy(q, q) - torch.where(q > 0, q * torch.log(torch.where(q > 0, p, 1)), 0)).sum(1)


def all_pairs(num_classes: int, batch: int) -> tuple[Tensor, Tensor]:
    """Label maps x_t and x_0 of C x C pixels that hold every pair of classes, `batch` times."""
    classes = torch.arange(num_classes)
    x_t, x_0 = torch.meshgrid(classes, classes, indexing="ij")
    return x_t.expand(batch, -1, -1), x_0.expand(batch, -1, -1)


def all_states(num_classes: int, pixels: int) -> Tensor:
    """Every label map of a row of pixels: C^N x N."""
    return torch.tensor(list(itertools.product(range(num_classes), repeat=pixels)))


def exact_denoiser(process: UniformDiffusion, joint: Tensor, states: Tensor) -> Predict:
    """p(x_0 | x_t) of every pixel by Bayes' rule, for label maps that are distributed as `joint` over `states`."""
    num_classes = process.num_classes
    one_hot, eye = F.one_hot(states, num_classes).double(), torch.eye(num_classes, dtype=torch.float64)

    def predict(x_t: Tensor, t: int) -> Tensor:
        keep = process.alpha_bar[t]
        likelihood = (keep * eye + (1 - keep) / num_classes)[states[:, None], x_t[None]].prod(-1)
        weights = joint[:, None] * likelihood
        return torch.einsum("os,onc->scn", weights / weights.sum(0), one_hot)

    return predict


def distribution_of_samples(
    process: Process,
    predict: Predict,
    states: Tensor,
    grid: list[int],
    sampler: str = "ancestral",
    eta: float = 0.0,
    start: Tensor | None = None,
) -> Tensor:
    """The distribution over `states` after the whole reverse process, its last step drawn; `start` is uniform if None.

    A step draws pixels independently given the state before it, so its matrix over joint states is a product.
    """
    size, pixels = states.shape
    sampling = SamplingConfig(sampler=sampler, eta=eta)
    distribution = torch.full((size,), 1 / size, dtype=torch.float64) if start is None else start
    for time, next_time in itertools.pairwise(grid):
        t, s = torch.full((size,), time), torch.full((size,), next_time)
        p = predict(states, time)[:, :, None]
        step = SAMPLERS[sampler](process, p, states[:, None], t, s, torch.zeros_like(t), sampling)[:, :, 0]
        matrix = step[:, :, 0]
        for pixel in range(1, pixels):
            matrix = (matrix[:, :, None] * step[:, None, :, pixel]).flatten(1)
        distribution = distribution @ matrix
    return distribution


def share_of_objects(process: UniformDiffusion, pixels: int, probability: float, grid: list[int]) -> float:
    """How often `ancestral` samples, the arg max at the end, show an object that covers all pixels with the given
    probability, and none otherwise: all label maps with as many pixels of class 1 are alike, so these are counted."""
    count = torch.arange(pixels + 1)
    reached = stats.binom.pmf(count, pixels, 0.5)
    for time, next_time in itertools.pairwise(grid):
        t, s = torch.full_like(count, time), torch.full_like(count, next_time)
        abar = process.alpha_bar[time]
        logit = math.log(probability / (1 - probability)) + (2 * count - pixels) * torch.log((1 + abar) / (1 - abar))
        p_x_0 = torch.stack([-logit, logit], 1).sigmoid()[:, :, None, None].expand(-1, -1, 1, 2)
        if next_time == 0:
            return float(reached[logit > 0].sum())
        x_t = torch.tensor([[0, 1]]).expand(len(count), 1, 2)
        becomes_one = process.p_posterior(p_x_0, x_t, t, s)[:, 1, 0].numpy()
        after = np.zeros(pixels + 1)
        for ones, (from_zero, from_one) in enumerate(becomes_one):
            zeros = pixels - ones
            kept = stats.binom.pmf(np.arange(ones + 1), ones, from_one)
            after += reached[ones] * np.convolve(kept, stats.binom.pmf(np.arange(zeros + 1), zeros, from_zero))
        reached = after
    raise AssertionError("the grid does not end at 0")


def total_variation(a: Tensor, b: Tensor) -> float:
    """Half the L1 distance of two distributions."""
    return 0.5 * float((a - b).abs().sum())


def constant_bits(bits: int) -> Callable[[Tensor, tuple[int, ...]], Tensor]:
    """A replacement for the random bits of `utils.noise`, to test its extreme values."""
    return lambda key, shape: torch.full((len(key), *shape), bits, dtype=torch.int32)
