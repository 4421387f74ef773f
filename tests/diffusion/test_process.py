"""A process is an interface: one with an additional state, a mask, is sampled, trained and scored like the uniform one.

For the absorbing process the right answers are known exactly.
"""

import itertools

import pytest
import torch
from torch import Tensor

from diffusion import SamplingConfig, reverse_process
from diffusion.likelihood import bits_per_pixel
from tests.diffusion import brute_force as brute
from tests.extensions.own_code.my_process import MaskDiffusion
from utils.noise import derive_key

C, T = 3, 6
PROCESS = MaskDiffusion(C, T)
MASK = C


def forward_matrix(s: int, t: int) -> Tensor:
    """q(x_t | x_s), the product of the one-step matrices in between: C + 1 x C + 1."""
    matrix = torch.eye(C + 1, dtype=torch.float64)
    for time in range(s + 1, t + 1):
        keep = PROCESS.alpha_bar[time] / PROCESS.alpha_bar[time - 1]
        step = keep * torch.eye(C + 1, dtype=torch.float64)
        step[:, MASK] += 1 - keep
        matrix = matrix @ step
    return matrix


def posterior(t: int, s: int) -> Tensor:
    """q(x_s = k | x_t, x_0) by Bayes' rule, as [k, x_t, x_0]; 0 where x_t cannot follow from x_0."""
    joint = forward_matrix(0, s)[:C].T[:, None, :] * forward_matrix(s, t)[:, :, None]
    marginal = forward_matrix(0, t)[:C].T
    return torch.where(marginal > 0, joint / marginal.clamp(min=1e-300), 0)


@pytest.mark.parametrize(("s", "t"), list(itertools.combinations(range(T + 1), 2)))
def test_reverse_step_is_bayes_rule_averaged_over_x_0(s: int, t: int) -> None:
    p = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64)
    table = posterior(t, s)
    for x_t, p_x_0 in ((MASK, p), *zip(range(C), torch.eye(C, dtype=torch.float64), strict=True)):
        if x_t != MASK and t == T:
            continue  # everything is masked at T
        x = torch.full((1, 1, 1), x_t)
        step = PROCESS.p_posterior(p_x_0[None, :, None, None], x, torch.tensor([t]), torch.tensor([s])).flatten()
        torch.testing.assert_close(step, table[:, x_t] @ p_x_0, rtol=0, atol=1e-14)


@pytest.mark.parametrize("t", range(1, T + 1))
def test_kl_is_the_explicit_divergence(t: int) -> None:
    logits = torch.randn(1, C, 1, C, generator=torch.Generator().manual_seed(t), dtype=torch.float64)
    x_0 = torch.arange(C)[None, None]
    q = posterior(t, t - 1)[:, MASK]  # k x x_0
    p = posterior(t, t - 1)[:, MASK] @ logits.softmax(1)[0, :, 0]
    expected = (torch.xlogy(q, q) - torch.xlogy(q, p)).sum(0)
    kl = PROCESS.kl(logits, torch.full_like(x_0, MASK), x_0, torch.tensor([t]))
    torch.testing.assert_close(kl.flatten(), expected, rtol=0, atol=1e-14)
    assert not PROCESS.kl(logits, x_0, x_0, torch.tensor([t])).any()


def test_two_pixels_are_wrong_only_if_one_step_draws_both() -> None:
    """Each pixel is unmasked at a uniformly distributed step: both at the same one with probability 1 / T."""
    states = brute.all_states(C + 1, 2)
    joint = torch.rand(C, C, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    joint /= joint.sum()
    rows, columns = joint / joint.sum(1, keepdim=True), joint / joint.sum(0)

    def predict(x_t: Tensor, t: int) -> Tensor:
        first = [joint.sum(1) if b == MASK else columns[:, b] for _, b in x_t.tolist()]
        second = [joint.sum(0) if a == MASK else rows[a] for a, _ in x_t.tolist()]
        return torch.stack([torch.stack(first), torch.stack(second)], dim=2)

    masked = (states == MASK).all(1).double()
    samples = brute.distribution_of_samples(PROCESS, predict, states, list(range(T, -1, -1)), start=masked)
    samples = samples.view(C + 1, C + 1)
    assert not samples[MASK].any()
    assert not samples[:, MASK].any()
    independent = joint.sum(1)[:, None] * joint.sum(0)
    torch.testing.assert_close(samples[:C, :C], joint + (independent - joint) / T, rtol=0, atol=1e-14)


def test_samples_come_from_the_mask_and_follow_the_prediction() -> None:
    p = torch.tensor([0.6, 0.3, 0.1])
    keys = derive_key(torch.arange(2))
    logits = p.log()[None, :, None, None].expand(2, C, 100, 100)
    sampling = SamplingConfig(sampler="ancestral", last_step="draw")
    steps = list(reverse_process(PROCESS, lambda x, t: logits, keys, (100, 100), sampling))
    assert len(steps) == T  # the default of 10 steps is more than there are
    masked = [float((step.x_s == MASK).double().mean()) for step in steps]
    assert masked == pytest.approx([1 - step / T for step in range(1, T + 1)], abs=0.02)
    frequencies = torch.bincount(steps[-1].x_s.flatten(), minlength=C + 1) / steps[-1].x_s.numel()
    assert frequencies.tolist() == pytest.approx([0.6, 0.3, 0.1, 0], abs=0.02)


def test_the_bound_is_the_entropy_code_for_pixels_that_are_predicted_exactly() -> None:
    p = torch.tensor([0.6, 0.3, 0.1], dtype=torch.float64)
    x_0, keys = torch.arange(C).repeat(4, 400, 50), derive_key(torch.arange(4))
    bits = bits_per_pixel(PROCESS, lambda x, t: p.log()[None, :, None, None].expand(4, C, 400, 150), x_0, keys)
    expected = float(-p.log2().mean())
    assert bits.tolist() == pytest.approx([expected] * 4, rel=0.01)
