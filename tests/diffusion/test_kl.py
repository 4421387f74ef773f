"""The loss against the explicit divergence, for every pair of classes, at the first, second, middle and last times."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.diffusion import brute_force as brute

per_classes = pytest.mark.parametrize("num_classes", brute.CLASSES)
per_length = pytest.mark.parametrize("time_steps", [brute.T, 250])

SINGLE = 4e-6
"""Error of a divergence in single precision, in nats: a few dozen roundings of logarithms of size 10."""


def some_times(time_steps: int) -> list[int]:
    return [1, 2, 3, time_steps // 2, time_steps]


def random_logits(num_classes: int, batch: int, scale: float = 3.0, seed: int = 0) -> Tensor:
    """Logits for `brute.all_pairs`."""
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(batch, num_classes, num_classes, num_classes, generator=generator, dtype=torch.float64)


def one_hot(x: Tensor, num_classes: int) -> Tensor:
    return F.one_hot(x, num_classes).movedim(-1, 1).double()


@per_classes
@per_length
def test_kl_is_the_explicit_divergence(num_classes: int, time_steps: int) -> None:
    process, times = brute.process(num_classes, time_steps), some_times(time_steps)
    x_t, x_0 = brute.all_pairs(num_classes, len(times))
    logits = random_logits(num_classes, len(times))
    kl = process.kl(logits, x_t, x_0, torch.tensor(times))
    for i, t in enumerate(times):
        here = slice(i, i + 1)
        expected = brute.explicit_kl(process, logits[here], x_t[here], x_0[here], t)
        torch.testing.assert_close(kl[here], expected, rtol=0, atol=1e-11)
    single = process.kl(logits.float(), x_t.to(torch.uint8), x_0.to(torch.uint8), torch.tensor(times))
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), kl, rtol=1e-6, atol=SINGLE)


@per_classes
def test_kl_has_the_gradient_of_the_explicit_divergence(num_classes: int) -> None:
    process = brute.process(num_classes)
    for t in some_times(brute.T):
        x_t, x_0 = brute.all_pairs(num_classes, 1)
        logits = random_logits(num_classes, 1, seed=t).requires_grad_()
        fast = torch.autograd.grad(process.kl(logits, x_t, x_0, torch.tensor([t])).sum(), logits)[0]
        explicit = torch.autograd.grad(brute.explicit_kl(process, logits, x_t, x_0, t).sum(), logits)[0]
        assert float(explicit.abs().max()) > 1e-6
        torch.testing.assert_close(fast, explicit, rtol=0, atol=1e-12)


@per_classes
@per_length
@pytest.mark.parametrize(("dtype", "zero"), [(torch.float64, 1e-14), (torch.float32, SINGLE)])
def test_kl_vanishes_as_the_prediction_becomes_certain_and_correct(
    num_classes: int, time_steps: int, dtype: torch.dtype, zero: float
) -> None:
    process, times = brute.process(num_classes, time_steps), some_times(time_steps)
    x_t, x_0 = brute.all_pairs(num_classes, len(times))
    before = torch.full(x_0.shape, torch.inf, dtype=dtype)
    for certainty in (0, 1, 3, 10, 30, 80):
        kl = process.kl((certainty * one_hot(x_0, num_classes)).to(dtype), x_t, x_0, torch.tensor(times))
        assert bool((kl <= before + zero).all())
        before = kl
    assert float(before.abs().max()) <= zero


@per_classes
@per_length
@pytest.mark.parametrize(("dtype", "zero"), [(torch.float64, 1e-14), (torch.float32, SINGLE)])
def test_kl_is_never_negative(num_classes: int, time_steps: int, dtype: torch.dtype, zero: float) -> None:
    process, times = brute.process(num_classes, time_steps), some_times(time_steps)
    x_t, x_0 = brute.all_pairs(num_classes, len(times))
    for scale in (0.01, 1, 10, 50):
        logits = random_logits(num_classes, len(times), scale).to(dtype)
        near_truth = (logits + 20 * one_hot(x_0, num_classes)).to(dtype)
        for prediction in (logits, near_truth):
            assert float(process.kl(prediction, x_t, x_0, torch.tensor(times)).min()) >= -zero


@per_classes
@per_length
@pytest.mark.parametrize("logit", [80.0, -80.0])
def test_gradients_survive_extreme_logits_in_single_precision(num_classes: int, time_steps: int, logit: float) -> None:
    """Each class in turn gets the extreme logit, right or wrong. No clamp: single precision agrees with double."""
    process = brute.process(num_classes, time_steps)
    times = torch.tensor([1, 2, time_steps])
    x_t, x_0 = brute.all_pairs(num_classes, len(times))
    for favoured in range(num_classes):
        double = torch.zeros(len(times), num_classes, num_classes, num_classes, dtype=torch.float64)
        double[:, favoured] = logit
        double.requires_grad_()
        single = double.detach().float().requires_grad_()
        losses = [process.kl(logits, x_t, x_0, times) for logits in (double, single)]
        gradients = [
            torch.autograd.grad(loss.sum(), logits)[0] for loss, logits in zip(losses, (double, single), strict=True)
        ]
        assert bool(torch.isfinite(losses[1]).all())
        assert bool(torch.isfinite(gradients[1]).all())
        torch.testing.assert_close(gradients[1].double(), gradients[0], rtol=1e-3, atol=1e-5)


def test_a_confident_mistake_at_the_first_step_keeps_its_gradient() -> None:
    """The cross entropy's gradient is softmax minus one-hot, however small the probability of the truth."""
    process = brute.process(2, 250)
    logits = torch.tensor([80.0, -80.0]).view(1, 2, 1, 1).requires_grad_()
    truth = torch.ones(1, 1, 1, dtype=torch.int64)
    loss = process.kl(logits, truth, truth, torch.tensor([1])).sum()
    loss.backward()
    assert loss.item() == pytest.approx(160)
    assert logits.grad is not None
    assert logits.grad.flatten().tolist() == pytest.approx([1, -1])
