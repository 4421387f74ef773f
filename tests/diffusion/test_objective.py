"""The training loss: the posterior over raters by enumeration, and what its options change."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from diffusion import PixelwiseClassifier, UniformDiffusion
from diffusion.objective import LossConfig, mix, training_loss
from diffusion.schedules import cosine, shifted
from diffusion.uniform import get_process
from tests.diffusion import brute_force as brute
from utils.noise import derive_key

PIXELS, RATERS = 2, 3
ALL, ONE = LossConfig(raters="all"), LossConfig(raters="one")

per_classes = pytest.mark.parametrize("num_classes", brute.CLASSES)


def random_labels(num_classes: int, *shape: int) -> Tensor:
    return torch.randint(num_classes, shape, generator=torch.Generator().manual_seed(0))


def random_target(num_classes: int, batch: int) -> Tensor:
    """Distributions over x_0 for `brute.all_pairs`, some of them certain."""
    shape = batch, num_classes, num_classes, num_classes
    target = (2 * torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)).softmax(1)
    target[..., 0] = F.one_hot(random_labels(num_classes, batch, num_classes), num_classes).movedim(-1, 1).double()
    return target


@per_classes
def test_kl_against_a_distribution_is_the_divergence_of_the_two_posteriors(num_classes: int) -> None:
    process, t = brute.process(num_classes), torch.tensor([1, 2, brute.T // 2, brute.T])
    x_t, _ = brute.all_pairs(num_classes, len(t))
    target = random_target(num_classes, len(t))
    logits = torch.randn(target.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    fast, slow = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    q, p = (process.p_posterior(x, x_t, t, t - 1) for x in (target, slow.softmax(1)))
    expected = (torch.xlogy(q, q) - torch.xlogy(q, p)).sum(1)
    kl = process.kl(fast, x_t, target, t)
    torch.testing.assert_close(kl, expected, rtol=0, atol=1e-12)
    gradients = torch.autograd.grad(kl.sum(), fast)[0], torch.autograd.grad(expected.sum(), slow)[0]
    torch.testing.assert_close(*gradients, rtol=0, atol=1e-11)
    single = process.kl(logits.float(), x_t, target, t)
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), kl, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("t", [1, 2, 6, brute.T])
@pytest.mark.parametrize("num_classes", [2, 3])
def test_posterior_over_raters_leaves_the_expected_gradient(num_classes: int, t: int) -> None:
    """Summed over every rater and x_t with their probabilities, for logits of their own for every x_t."""
    process, states = brute.process(num_classes), brute.all_states(num_classes, PIXELS)
    maps = random_labels(num_classes, RATERS, PIXELS)
    kernel = brute.forward_matrix(process, 0, t)
    probability = kernel[maps[:, None], states].prod(-1) / RATERS  # raters x states
    time, x_t = torch.full((len(states),), t), states[:, None]
    logits = torch.randn(len(states), num_classes, 1, PIXELS, dtype=torch.float64).requires_grad_()

    one_rater = sum(
        (probability[b] * process.kl(logits, x_t, maps[b].expand(len(states), 1, -1), time).sum((1, 2))).sum()
        for b in range(RATERS)
    )
    labels = maps[None, :, None].expand(len(states), -1, -1, -1)
    weights = process.q_log_prob(x_t, labels, time).softmax(1)
    torch.testing.assert_close(weights.T, probability / probability.sum(0), rtol=0, atol=1e-14)
    all_raters = probability.sum(0) * process.kl(logits, x_t, mix(labels, weights, num_classes), time).sum((1, 2))

    expected, found = (torch.autograd.grad(loss, logits)[0] for loss in (one_rater, all_raters.sum()))
    assert float(expected.abs().max()) > 1e-6
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def denoiser(x_t: Tensor, t: Tensor) -> Tensor:
    logits = torch.sin(torch.arange(3.0)[:, None, None] + x_t[:, None] + t[:, None, None, None])
    return logits.double()


def loss(labels: Tensor, config: LossConfig, **options: Tensor) -> Tensor:
    keys = derive_key("loss", torch.arange(len(labels)))
    return training_loss(brute.process(3, 250), denoiser, labels, keys, torch.tensor([1, 235]), config, **options)


def test_one_rater_is_the_same_whatever_the_option() -> None:
    labels = random_labels(3, 2, 1, 4, 5)
    assert torch.equal(loss(labels, ALL), loss(labels[:, 0], ONE))


def test_raters_who_are_absent_or_repeated_do_not_matter() -> None:
    labels, present = random_labels(3, 2, 4, 4, 5), torch.tensor([[True, True, False, False]] * 2)
    two = loss(labels[:, :2], ALL)
    torch.testing.assert_close(loss(labels, ALL, present=present), two)
    torch.testing.assert_close(loss(labels[:, [0, 1, 0, 1]], ALL), two)
    assert not torch.allclose(loss(labels, ALL), two)


def test_x_t_is_drawn_from_the_chosen_rater() -> None:
    labels = random_labels(3, 2, 4, 4, 5)
    chosen = loss(labels, ONE, rater=torch.tensor([2, 1]))
    assert torch.equal(chosen, loss(labels[[0, 1], [2, 1]], ONE))


def test_losses_add_up() -> None:
    labels = random_labels(3, 2, 4, 5)
    kl, ce = loss(labels, ONE), loss(labels, LossConfig(kl=0, cross_entropy=1))
    torch.testing.assert_close(loss(labels, LossConfig(kl=2, cross_entropy=0.5)), 2 * kl + 0.5 * ce)
    torch.testing.assert_close(kl[0], ce[0])  # at t = 1 they agree
    with pytest.raises(ValueError, match="must be positive"):
        LossConfig(kl=0)


def test_void_is_excluded_under_every_option() -> None:
    labels = random_labels(3, 2, 4, 4, 5)
    weights = torch.tensor([1.0, 1.0, 0.0])
    assert not loss(torch.full_like(labels, 2), ALL, class_weights=weights).any()
    torch.testing.assert_close(loss(labels, ALL, class_weights=torch.ones(3)), loss(labels, ALL))


@pytest.mark.parametrize("weights", [[1.0, 1.0, 0.0], [1.0, 5.0, 3.0]])
@pytest.mark.parametrize("config", [ALL, LossConfig(raters="all", kl=0, cross_entropy=1)])
def test_all_raters_with_class_weights_have_the_expected_gradient_of_one(
    weights: list[float], config: LossConfig
) -> None:
    labels, keys, t = random_labels(3, 1, 2, 4, 5), torch.tensor([7]), torch.tensor([120])
    process, logits = get_process(3), torch.randn(1, 3, 4, 5, dtype=torch.float64, requires_grad=True)
    one = config.model_copy(update={"raters": "one"})

    def gradient(x_t: Tensor, config: LossConfig, rater: int) -> Tensor:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(type(process), "q_sample", lambda *_: x_t)
            found = training_loss(
                process, lambda x, t: logits, labels, keys, t, config,
                rater=torch.tensor([rater]), class_weights=torch.tensor(weights),
            )  # fmt: skip
        return torch.autograd.grad(found.sum(), logits)[0]

    x_t = process.q_sample(labels[:, 0], t, keys)
    posterior = process.q_log_prob(x_t, labels, t).softmax(1)[0]
    expected = sum(posterior[rater] * gradient(x_t, one, rater) for rater in range(2))
    torch.testing.assert_close(gradient(x_t, config, 0), expected)


def test_a_classifier_learns_the_mean_of_the_raters() -> None:
    labels, logits = random_labels(3, 2, 4, 4, 5), torch.randn(2, 3, 4, 5)
    keys, t = torch.arange(2), torch.ones(2, dtype=torch.int64)
    found = training_loss(PixelwiseClassifier(3), lambda x, t: logits, labels, keys, t, ALL)
    each = [F.cross_entropy(logits, labels[:, a], reduction="none").sum((1, 2)) for a in range(4)]
    torch.testing.assert_close(found, torch.stack(each).mean(0))


@per_classes
def test_evidence_is_the_posterior_under_a_uniform_prior(num_classes: int) -> None:
    """With logits of zero, p(x_0 | x_t) is q(x_t | x_0) normalised over x_0."""
    process = get_process(num_classes, evidence=True)
    x_t, t = random_labels(num_classes, 3, 4, 5), torch.tensor([1, 100, 250])
    logits = process.evidence(torch.zeros(3, num_classes, 4, 5, dtype=torch.float64), x_t, t)
    one_hot = F.one_hot(x_t, num_classes).movedim(-1, 1).double()
    abar = process.alpha_bar[t][:, None, None, None]
    torch.testing.assert_close(logits.softmax(1), abar * one_hot + (1 - abar) / num_classes)
    plain = UniformDiffusion(num_classes, process.alpha_bar.clone())
    assert plain.evidence(logits, x_t, t) is logits


def test_shifted_schedule_is_its_formula() -> None:
    table, b = cosine(250), 0.4
    expected = b * table / torch.sqrt(1 - table**2 + b**2 * table**2)
    torch.testing.assert_close(shifted(250, b=b), expected, rtol=0, atol=1e-15)
    torch.testing.assert_close(shifted(250, b=1.0), table, rtol=0, atol=1e-15)
    assert bool((shifted(250)[1:-1] < table[1:-1]).all())
