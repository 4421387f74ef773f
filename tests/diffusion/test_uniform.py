"""The process against transition matrices written out, in float64, for every pair of classes at once."""

import itertools
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy import stats
from torch import Tensor

from diffusion import UniformConfig, UniformDiffusion, alpha_bar_table
from diffusion.uniform import get_process
from tests.diffusion import brute_force as brute
from utils import noise
from utils.errors import UserError
from utils.noise import derive_key

EXACT = {"rtol": 0.0, "atol": 1e-13}
ALL_TIMES = list(itertools.combinations(range(brute.T + 1), 2))
ETAS = (0.0, 0.1, 0.5, 0.9, 1.0)

per_classes = pytest.mark.parametrize("num_classes", brute.CLASSES)


def times(pairs: list[tuple[int, int]]) -> tuple[Tensor, Tensor]:
    """t and s of every pair (s, t)."""
    s, t = torch.tensor(pairs).unbind(1)
    return t, s


def random_p(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (3 * torch.randn(*shape, generator=generator, dtype=torch.float64)).softmax(1)


@per_classes
def test_kernel_is_the_product_of_one_step_matrices(num_classes: int) -> None:
    process = brute.process(num_classes)
    for s, t in ALL_TIMES:
        kernel = process.kernel(torch.tensor([t]), torch.tensor([s]), torch.float64)
        eye = torch.eye(num_classes, dtype=torch.float64)
        matrix = torch.where(eye == 1, kernel.same.squeeze(), kernel.other.squeeze())
        torch.testing.assert_close(matrix, brute.forward_matrix(process, s, t), **EXACT)


@per_classes
def test_posterior_is_bayes_rule_and_the_reverse_step_its_average_over_x_0(num_classes: int) -> None:
    process = brute.process(num_classes)
    x_t, x_0 = brute.all_pairs(num_classes, len(ALL_TIMES))
    table = torch.stack([brute.posterior(process, t, s) for s, t in ALL_TIMES])
    torch.testing.assert_close(process.q_posterior(x_t, x_0, *times(ALL_TIMES)), table, **EXACT)
    p_x_0 = random_p(len(ALL_TIMES), num_classes, num_classes, num_classes)
    expected = torch.einsum("bkho,bohw->bkhw", table, p_x_0)  # x_t is the row of the pixel
    torch.testing.assert_close(process.p_posterior(p_x_0, x_t, *times(ALL_TIMES)), expected, **EXACT)


@per_classes
@pytest.mark.parametrize("sampler", ["ancestral", "ddim"])
def test_the_step_to_zero_returns_the_prediction(num_classes: int, sampler: str) -> None:
    process = brute.process(num_classes)
    t = torch.arange(1, brute.T + 1)
    x_t, _ = brute.all_pairs(num_classes, len(t))
    p_x_0 = random_p(len(t), num_classes, num_classes, num_classes)
    step = process.p_posterior if sampler == "ancestral" else process.ddim_posterior
    torch.testing.assert_close(step(p_x_0, x_t, t, torch.zeros_like(t)), p_x_0, **EXACT)


@per_classes
@pytest.mark.parametrize("eta", ETAS)
def test_ddim_keeps_the_marginals_and_without_eta_as_many_pixels_as_it_can(num_classes: int, eta: float) -> None:
    process = brute.process(num_classes)
    x_t, x_0 = brute.all_pairs(num_classes, len(ALL_TIMES))
    e_x_0 = F.one_hot(x_0, num_classes).movedim(-1, 1).double()
    q = process.ddim_posterior(e_x_0, x_t, *times(ALL_TIMES), eta)
    for (s, t), q_s in zip(ALL_TIMES, q, strict=True):
        at_t, at_s = brute.forward_matrix(process, 0, t), brute.forward_matrix(process, 0, s)
        torch.testing.assert_close(torch.einsum("kto,ot->ok", q_s, at_t), at_s, **EXACT)
        if eta == 0:  # no process with these marginals keeps x_t more often
            kept = torch.einsum("kko,ok->o", q_s, at_t)
            torch.testing.assert_close(kept, torch.minimum(at_s, at_t).sum(1), **EXACT)


def test_ddim_with_eta_one_forgets_x_t() -> None:
    process = brute.process(3)
    p_x_0 = random_p(1, 3, 1, 1).expand(3, 3, 1, 1)
    t, s = torch.full((3,), 8), torch.full((3,), 5)
    q = process.ddim_posterior(p_x_0, torch.arange(3)[:, None, None], t, s, eta=1.0)
    torch.testing.assert_close(q[1:], q[:1].expand(2, -1, -1, -1), **EXACT)
    assert float((q - p_x_0).abs().max()) > 0.05


@settings(max_examples=60, deadline=None, derandomize=True)
@given(data=st.data(), num_classes=st.integers(2, 20), fall=st.lists(st.floats(0.01, 0.99), min_size=2, max_size=6))
def test_every_step_is_a_distribution_for_any_table(data: st.DataObject, num_classes: int, fall: list[float]) -> None:
    table = torch.cumprod(torch.tensor([1.0, *fall], dtype=torch.float64), 0)
    process = UniformDiffusion(num_classes, table)
    s = data.draw(st.integers(0, len(fall) - 1))
    t = data.draw(st.integers(s + 1, len(fall)))
    eta = data.draw(st.floats(0, 1))
    p_x_0 = random_p(1, num_classes, 1, num_classes, seed=data.draw(st.integers(0, 999)))
    x_t = torch.arange(num_classes)[None, None]
    at = (torch.tensor([t]), torch.tensor([s]))
    for q in (process.p_posterior(p_x_0, x_t, *at), process.ddim_posterior(p_x_0, x_t, *at, eta)):
        assert float(q.min()) >= -1e-14
        torch.testing.assert_close(q.sum(1), torch.ones_like(q[:, 0]), **EXACT)


def test_single_precision_agrees_with_double() -> None:
    process = brute.process(20)
    x_t, _ = brute.all_pairs(20, len(ALL_TIMES))
    p_x_0 = random_p(len(ALL_TIMES), 20, 20, 20)
    for step in (process.p_posterior, process.ddim_posterior):
        single = step(p_x_0.float(), x_t.to(torch.uint8), *times(ALL_TIMES))
        assert single.dtype == torch.float32
        torch.testing.assert_close(single.double(), step(p_x_0, x_t, *times(ALL_TIMES)), rtol=1e-5, atol=1e-6)


@per_classes
def test_q_sample_follows_the_marginal(num_classes: int) -> None:
    """Chi-square against the matrices; with these keys all p-values are above 1e-3."""
    process = brute.process(num_classes, 250)
    for t in (1, 100, 250):
        x_0 = torch.arange(num_classes).repeat_interleave(20_000)[None, None]
        x_t = process.q_sample(x_0, torch.tensor([t]), derive_key(7, t)[None])
        counts = torch.zeros(num_classes, num_classes).index_put_(
            (x_0.flatten(), x_t.flatten()), torch.ones(()), accumulate=True
        )
        expected = 20_000 * brute.forward_matrix(process, 0, t)
        statistic = float(((counts - expected) ** 2 / expected).sum())
        assert stats.chi2.sf(statistic, num_classes * (num_classes - 1)) > 1e-3
        assert (counts.sum(1) == 20_000).all()


def test_q_sample_at_time_zero_is_the_data() -> None:
    process = brute.process(5)
    x_0 = torch.arange(5).repeat(1, 40, 200)
    assert torch.equal(process.q_sample(x_0, torch.tensor([0]), derive_key(torch.arange(1))), x_0)


@pytest.mark.parametrize("bits", [-1, 0])
def test_only_classes_that_exist_are_drawn(bits: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The largest uniform number times C must not round up to C."""
    monkeypatch.setattr(noise, "_random_bits", brute.constant_bits(bits))
    for num_classes in range(2, 257):
        process = UniformDiffusion(num_classes, torch.tensor([1.0, 0.0]))
        x_0, key = torch.zeros(1, 1, 1, dtype=torch.int64), torch.zeros(1, dtype=torch.int64)
        x_1, x_T = process.q_sample(x_0, torch.tensor([1]), key), process.sample_prior(key, (1, 1))
        assert int(x_1) == int(x_T) == (num_classes - 1 if bits == -1 else 0)


def test_the_prior_is_uniform() -> None:
    counts = torch.bincount(brute.process(7).sample_prior(derive_key(torch.arange(4)), (200, 200)).flatten())
    assert len(counts) == 7
    assert stats.chisquare(counts).pvalue > 1e-3


def test_a_process_is_created_from_its_config() -> None:
    process = get_process(3, time_steps=40, beta_schedule="linear", beta_schedule_params={"last": 0.5})
    assert process.config == UniformConfig(time_steps=40, beta_schedule="linear", beta_schedule_params={"last": 0.5})
    assert torch.equal(process.alpha_bar, alpha_bar_table("linear", 40, last=0.5))
    assert (process.num_classes, process.num_states, process.time_steps) == (3, 3, 40)
    assert get_process(3).time_steps == 250
    with pytest.raises(ValidationError, match="'cosin'; choose from: cosine, linear"):
        get_process(3, beta_schedule="cosin")
    with pytest.raises(ValidationError, match="betas"):
        get_process(3, betas=3)


@pytest.mark.parametrize("num_classes", [-1, 0, 1, 257, None, 2.5])
def test_a_process_has_2_to_256_classes(num_classes: Any) -> None:
    with pytest.raises(UserError, match=f"num_classes is {num_classes}"):
        UniformDiffusion(num_classes, torch.tensor([1.0, 0.5]))


@per_classes
def test_prior_kl_is_the_distance_of_the_last_marginal_from_uniform(num_classes: int) -> None:
    for last in (0.5, 1e-3, 0.0):
        process = UniformDiffusion(num_classes, torch.tensor([1.0, 0.7, last], dtype=torch.float64))
        q = brute.forward_matrix(process, 0, 2)[0]
        assert float(process.prior_kl()) == pytest.approx(float(torch.xlogy(q, q * num_classes).sum()), abs=1e-13)
