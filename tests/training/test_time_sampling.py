"""Times of a batch: what is covered, and that weighted losses keep their expectation."""

import pytest
import torch

from diffusion.uniform import get_process
from training.time_sampling import TIME_SAMPLERS, ImportanceTimes, StratifiedTimes
from utils.noise import derive_key

PROCESS, T = get_process(2, time_steps=100), 100


def loss_at(t: torch.Tensor) -> torch.Tensor:
    return torch.exp(-t.double() / 20) + 0.01


def draw(sampler: StratifiedTimes, step: int, batch: int) -> tuple[torch.Tensor, torch.Tensor]:
    keys, positions = derive_key("keys", step, torch.arange(batch)), torch.arange(batch)
    return sampler.draw(keys, derive_key("step", step), positions, batch)


@pytest.mark.parametrize("name", TIME_SAMPLERS)
def test_weighted_losses_have_the_mean_of_uniform_times(name: str) -> None:
    sampler = TIME_SAMPLERS[name](PROCESS)
    for step in range(50):  # importance learns the loss first
        t, _ = draw(sampler, step, 64)
        sampler.update(t, loss_at(t))
    means = []
    for step in range(2000):
        t, weight = draw(sampler, 1000 + step, 8)
        assert 1 <= int(t.min()) <= int(t.max()) <= T
        means.append(float((weight * loss_at(t)).mean()))
    expected = float(loss_at(torch.arange(1, T + 1)).mean())
    error = torch.tensor(means).std() / len(means) ** 0.5
    assert abs(sum(means) / len(means) - expected) < 4 * float(error) + 1e-6


def test_stratified_times_cover_the_whole_process_in_every_batch() -> None:
    for step in range(20):
        t, weight = draw(StratifiedTimes(PROCESS), step, 10)
        assert sorted((t - 1).div(10, rounding_mode="floor").tolist()) == list(range(10))
        assert weight.tolist() == [1] * 10


@pytest.mark.parametrize("name", TIME_SAMPLERS)
def test_times_of_a_share_are_those_of_the_whole_batch(name: str) -> None:
    sampler = TIME_SAMPLERS[name](PROCESS)
    keys, step = derive_key("keys", torch.arange(6)), derive_key("step", 1)
    whole, _ = sampler.draw(keys, step, torch.arange(6), 6)
    odd, _ = sampler.draw(keys[1::2], step, torch.arange(1, 6, 2), 6)
    assert torch.equal(odd, whole[1::2])


def test_importance_prefers_times_of_large_losses_and_lowers_the_variance() -> None:
    samplers = {name: TIME_SAMPLERS[name](PROCESS) for name in ("stratified", "importance")}
    spread = {}
    for name, sampler in samplers.items():
        for step in range(200):
            t, _ = draw(sampler, step, 16)
            sampler.update(t, loss_at(t))
        drawn = [draw(sampler, 500 + step, 1) for step in range(500)]
        spread[name] = float(torch.cat([weight * loss_at(t) for t, weight in drawn]).std())
    assert spread["importance"] < 0.5 * spread["stratified"]
    importance = samplers["importance"]
    assert isinstance(importance, ImportanceTimes)
    assert importance.probabilities[0] > 5 * importance.probabilities[-1]
    assert float(importance.probabilities.sum()) == pytest.approx(1)


def test_importance_continues_from_its_state() -> None:
    one, other = ImportanceTimes(PROCESS), ImportanceTimes(PROCESS)
    for step in range(5):
        t, _ = draw(one, step, 16)
        one.update(t, loss_at(t))
    other.load_state_dict(one.state_dict())
    assert torch.equal(draw(other, 9, 16)[0], draw(one, 9, 16)[0])


def test_losses_that_are_not_finite_are_not_learned() -> None:
    sampler = ImportanceTimes(PROCESS)
    sampler.update(torch.tensor([1, 2]), torch.tensor([torch.nan, torch.inf]))
    assert bool(sampler.probabilities.isfinite().all())
