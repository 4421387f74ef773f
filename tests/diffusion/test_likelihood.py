"""The bound on the likelihood, compared with the likelihood by enumeration of all label maps."""

import math

import pytest
import torch
from torch import Tensor

from diffusion import UniformDiffusion
from diffusion.likelihood import bits_per_pixel
from diffusion.samplers import Denoiser
from tests.diffusion import brute_force as brute
from utils.noise import derive_key

TABLE = torch.tensor([1.0, 0.9, 0.6, 0.3, 0.05], dtype=torch.float64)
TO_NOISE = torch.tensor([1.0, 0.9, 0.6, 0.3, 1e-13], dtype=torch.float64)


def as_denoiser(predict: brute.Predict) -> Denoiser:
    """A denoiser of label maps of one row, for images that all have the same time."""

    def denoiser(x_t: Tensor, t: Tensor) -> Tensor:
        return predict(x_t[:, 0].long(), int(t[0])).log()[:, :, None]

    return denoiser


def random_predictions(num_classes: int, pixels: int, seed: int) -> brute.Predict:
    """An untrained network: a table of random predictions, each of which depends on all pixels."""
    generator = torch.Generator().manual_seed(seed)
    size = (len(TABLE), *[num_classes] * pixels, num_classes, pixels)
    table = (1.5 * torch.randn(size, generator=generator, dtype=torch.float64)).softmax(-2)
    return lambda x_t, t: table[t][tuple(x_t.unbind(1))]


def expected_bound(process: UniformDiffusion, predict: brute.Predict, states: Tensor) -> Tensor:
    """The bound in bits per pixel for every state as x_0, all x_t summed over with the forward matrices."""
    size = len(states)
    nats = torch.zeros(size, dtype=torch.float64)
    for t in range(1, process.time_steps + 1):
        likelihood = brute.forward_matrix(process, 0, t)[states[:, None], states[None]].prod(-1)
        logits = predict(states, t).log()[:, :, None]
        for i, x_0 in enumerate(states):
            x_0_everywhere = x_0.expand(size, 1, -1)
            kl = process.kl(logits, states[:, None], x_0_everywhere, torch.full((size,), t))
            nats[i] += (likelihood[i] * kl.mean((1, 2))).sum()
    return (nats + process.prior_kl()) / math.log(2)


def true_bits(process: UniformDiffusion, predict: brute.Predict, states: Tensor) -> Tensor:
    """-log2 p(x_0) per pixel of every state, by enumeration of the whole process."""
    grid = list(range(process.time_steps, -1, -1))
    p = brute.distribution_of_samples(process, predict, states, grid)
    assert float(p.sum()) == pytest.approx(1, abs=1e-12)
    return -p.log2() / states.shape[1]


def estimates(process: UniformDiffusion, predict: brute.Predict, x_0: Tensor, number: int) -> Tensor:
    keys = derive_key("estimates", torch.arange(number))
    return bits_per_pixel(process, as_denoiser(predict), x_0.expand(number, 1, -1), keys)


@pytest.mark.parametrize(("num_classes", "pixels"), [(2, 2), (3, 2), (2, 3)])
@pytest.mark.parametrize("seed", range(5))
def test_the_bound_is_above_the_true_negative_log_likelihood(num_classes: int, pixels: int, seed: int) -> None:
    process, states = UniformDiffusion(num_classes, TABLE), brute.all_states(num_classes, pixels)
    predict = random_predictions(num_classes, pixels, seed)
    gap = expected_bound(process, predict, states) - true_bits(process, predict, states)
    assert float(gap.min()) > 0
    assert float(gap.mean()) < 3


@pytest.mark.parametrize("seed", range(3))
def test_the_estimate_is_unbiased(seed: int) -> None:
    """Within four standard errors of the expectation, which is summed exactly."""
    process, states = UniformDiffusion(2, TABLE), brute.all_states(2, 2)
    predict = random_predictions(2, 2, seed)
    for x_0, expected in zip(states, expected_bound(process, predict, states), strict=True):
        bits = estimates(process, predict, x_0, 5_000)
        assert bits.dtype == torch.float64
        standard_error = float(bits.std()) / math.sqrt(len(bits))
        assert 0 < standard_error < 0.04
        assert abs(float(bits.mean() - expected)) < 4 * standard_error


@pytest.mark.parametrize("num_classes", brute.CLASSES)
def test_the_bound_is_tight_for_the_exact_denoiser_of_one_pixel(num_classes: int) -> None:
    """The reverse step of one pixel is then the exact reversal of the forward process."""
    process, states = UniformDiffusion(num_classes, TO_NOISE), brute.all_states(num_classes, 1)
    data = torch.rand(num_classes, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 0.05
    data /= data.sum()
    predict = brute.exact_denoiser(process, data, states)
    torch.testing.assert_close(expected_bound(process, predict, states), -data.log2(), rtol=0, atol=1e-10)
    torch.testing.assert_close(true_bits(process, predict, states), -data.log2(), rtol=0, atol=1e-10)
    bits = estimates(process, predict, states[0], 5_000)
    assert abs(float(bits.mean() + data[0].log2())) < 4 * float(bits.std()) / math.sqrt(len(bits))


def test_correlated_pixels_cost_the_exact_denoiser_more_in_few_steps() -> None:
    """No network has a lower expected bound; more steps close the gap to the entropy."""
    states = brute.all_states(2, 2)
    joint = torch.tensor([0.55, 0.05, 0.05, 0.35], dtype=torch.float64)
    entropy = -(joint * joint.log2()).sum() / 2
    gaps = []
    for steps in (4, 16, 64):
        table = torch.linspace(1, 1e-6, steps + 1, dtype=torch.float64) ** 2
        process = UniformDiffusion(2, table)
        predict = brute.exact_denoiser(process, joint, states)
        gaps.append(float((joint * expected_bound(process, predict, states)).sum() - entropy))
    assert gaps[0] > 2 * gaps[1] > 4 * gaps[2] > 0
    assert gaps[2] < 0.02


def test_the_estimate_depends_on_the_key_and_not_on_the_batch() -> None:
    process, keys = UniformDiffusion(2, TABLE), derive_key(torch.arange(7))
    denoiser = as_denoiser(random_predictions(2, 2, seed=0))
    x_0 = brute.all_states(2, 2)[[0, 1, 2, 3, 0, 0, 0]][:, None]
    together = bits_per_pixel(process, denoiser, x_0, keys)
    alone = torch.cat([bits_per_pixel(process, denoiser, x_0[i : i + 1], keys[i : i + 1]) for i in range(7)])
    torch.testing.assert_close(together, alone, rtol=1e-13, atol=0)
    assert len(set(together[[0, 4, 5, 6]].tolist())) > 1
