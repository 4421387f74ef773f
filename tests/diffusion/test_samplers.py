"""Time grids, draws, and the loop from noise to a label map."""

import itertools
import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy import stats
from torch import Tensor

from diffusion import (
    SAMPLERS,
    PixelwiseClassifier,
    Process,
    SamplingConfig,
    alpha_bar_table,
    reverse_process,
    time_grid,
)
from diffusion.samplers import Denoiser, Step, draw, prior_sample
from tests.diffusion import brute_force as brute
from utils.errors import UserError
from utils.noise import derive_key

NUM_CLASSES, SHAPE = 5, (7, 9)

per_sampler = pytest.mark.parametrize("sampler", sorted(SAMPLERS))


def pointwise_denoiser(images: Tensor) -> Denoiser:
    """Float64 logits of a pixel from its own class, time and image value (B x H x W)."""
    classes = torch.arange(NUM_CLASSES, dtype=torch.float64)[:, None, None]

    def denoiser(x_t: Tensor, t: Tensor) -> Tensor:
        x, time, image = x_t[:, None].double(), t[:, None, None, None].double(), images[:, None]
        return 2 * torch.sin(classes * (1 + image) + x) + (x == classes) * 100 / (time + 20)

    return denoiser


def some_images(number: int) -> Tensor:
    return torch.rand(number, *SHAPE, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def run(images: Tensor, keys: Tensor, sampler: str = "ancestral", last_step: Any = "draw") -> list[Step]:
    sampling = SamplingConfig(steps=10, sampler=sampler, eta=0.3, last_step=last_step)
    return list(reverse_process(brute.process(NUM_CLASSES, 250), pointwise_denoiser(images), keys, SHAPE, sampling))


@settings(max_examples=200, deadline=None, derandomize=True)
@given(data=st.data(), time_steps=st.integers(1, 1000), schedule=st.sampled_from(["cosine", "linear"]))
@pytest.mark.filterwarnings("ignore:alpha_bar_T")
def test_time_grid_decreases_from_the_last_time_to_zero(data: st.DataObject, time_steps: int, schedule: str) -> None:
    steps = data.draw(st.integers(1, time_steps))
    grid = time_grid(alpha_bar_table(schedule, time_steps), steps)
    assert (grid[0], grid[-1], len(grid)) == (time_steps, 0, steps + 1)
    assert all(later < earlier for earlier, later in itertools.pairwise(grid))


def test_time_grid_has_known_values() -> None:
    table = alpha_bar_table("cosine", 250)
    assert time_grid(table, 5) == [250, 218, 184, 147, 102, 0]
    assert time_grid(table, 250) == list(range(250, -1, -1))
    assert time_grid(table, 1) == [250, 0]
    for steps in (-1, 0, 251):
        with pytest.raises(UserError, match=f"{steps} sampling steps.*choose 1 to 250"):
            time_grid(table, steps)


@pytest.mark.parametrize(
    ("process", "steps", "last_step"),
    [
        (brute.process(2, 250), 10, "argmax"),
        (brute.process(2, 12), 10, "argmax"),
        (brute.process(2, 3), 3, "argmax"),
        (PixelwiseClassifier(2), 1, "draw"),
    ],
)
def test_defaults_depend_on_the_process(process: Process, steps: int, last_step: Any) -> None:
    resolved = SamplingConfig().resolve(process)
    assert (resolved.steps, resolved.last_step) == (steps, last_step)
    assert SamplingConfig(sampler="ancestral").resolve(brute.process(2, 250)).steps == 10
    assert SamplingConfig(steps=1).resolve(process).last_step == "draw"
    requested = SamplingConfig(steps=1, sampler="ddim", eta=0.5, last_step="argmax")
    assert requested.resolve(process) == requested


def test_more_steps_than_the_process_has_are_refused_if_requested() -> None:
    process, sampling = brute.process(NUM_CLASSES), SamplingConfig(steps=13)
    with pytest.raises(UserError, match="13 sampling steps requested, but the process has 12"):
        sampling.resolve(process)
    with pytest.raises(UserError, match="13 sampling steps"):
        reverse_process(process, pointwise_denoiser(some_images(1)), derive_key(torch.arange(1)), SHAPE, sampling)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"sampler": "ddpm"}, "'ddpm'; choose from: ancestral, coherent, ddim"),
        ({"steps": 0}, "greater than or equal to 1"),
        ({"eta": 1.5}, "less than or equal to 1"),
        ({"correlation_length": 0}, "greater than 0"),
        ({"last_step": "mean"}, "'argmax' or 'draw'"),
    ],
)
def test_impossible_configs_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        SamplingConfig(**values)


@per_sampler
@pytest.mark.parametrize("last_step", ["argmax", "draw"])
def test_samples_do_not_depend_on_the_batch(sampler: str, last_step: Any) -> None:
    images, keys = some_images(7), derive_key(3, torch.arange(7))
    together = run(images, keys, sampler, last_step)
    for chunk in (1, 2, 3, 5):
        pieces = [run(*piece, sampler, last_step) for piece in zip(images.split(chunk), keys.split(chunk), strict=True)]
        for step, parts in zip(together, zip(*pieces, strict=True), strict=True):
            assert torch.equal(step.x_s, torch.cat([part.x_s for part in parts]))
    order = torch.tensor([4, 0, 6, 2, 1, 5, 3])
    assert torch.equal(run(images[order], keys[order], sampler, last_step)[-1].x_s, together[-1].x_s[order])


@per_sampler
@pytest.mark.parametrize("steps", [1, 3, 12])
def test_every_step_of_the_grid_starts_from_the_label_maps_before(sampler: str, steps: int) -> None:
    process, keys = brute.process(NUM_CLASSES), derive_key(torch.arange(2))
    denoiser, grid = pointwise_denoiser(some_images(2)), time_grid(process.alpha_bar, steps)
    sampling = SamplingConfig(steps=steps, sampler=sampler, eta=0.3, last_step="argmax")
    chain, x_t = list(reverse_process(process, denoiser, keys, SHAPE, sampling)), prior_sample(process, keys, SHAPE)
    assert [step.s for step in chain] == grid[1:]
    for time, step in zip(grid, chain, strict=False):
        t, s = torch.full((2,), time), torch.full((2,), step.s)
        p = denoiser(x_t, t).softmax(1)
        expected = SAMPLERS[sampler](process, p, x_t, t, s, derive_key(keys, step.s), sampling)
        torch.testing.assert_close(step.probabilities, expected)
        assert (step.x_s.dtype, step.x_s.shape) == (torch.uint8, (2, *SHAPE))
        x_t = step.x_s


@pytest.mark.parametrize("process", [brute.process(NUM_CLASSES), PixelwiseClassifier(NUM_CLASSES)])
def test_arg_max_and_probabilities_of_a_correlated_last_step_do_not_depend_on_its_noise(process: Process) -> None:
    images, keys = some_images(1).expand(50, -1, -1), derive_key(torch.arange(50))
    p = pointwise_denoiser(images)(torch.zeros(50, *SHAPE, dtype=torch.uint8), torch.ones(50).long()).softmax(1)

    def last(last_step: Any) -> Step:
        sampling = SamplingConfig(steps=1, last_step=last_step)
        return list(reverse_process(process, lambda x_t, t: p.log(), keys, SHAPE, sampling))[-1]

    assert torch.equal(last("argmax").x_s.long(), p.argmax(1))
    torch.testing.assert_close(last("draw").probabilities, p)
    assert len(last("draw").x_s.unique(dim=0)) > 1
    assert torch.equal(last(None).x_s, last("draw").x_s)


@per_sampler
def test_the_last_step_is_the_arg_max_or_a_draw_of_the_same_prediction(sampler: str) -> None:
    images, keys = some_images(2), derive_key(torch.arange(2))
    argmax, drawn = (run(images, keys, sampler, last_step) for last_step in ("argmax", "draw"))
    assert torch.equal(argmax[-2].x_s, drawn[-2].x_s)
    assert torch.equal(argmax[-1].probabilities, drawn[-1].probabilities)
    assert torch.equal(argmax[-1].x_s.long(), argmax[-1].probabilities.argmax(1))
    assert not torch.equal(argmax[-1].x_s, drawn[-1].x_s)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_low_precision_logits_are_sampled_in_single_precision(dtype: torch.dtype) -> None:
    process, keys = brute.process(NUM_CLASSES), derive_key(torch.arange(2))
    exact = pointwise_denoiser(some_images(2))
    chain = reverse_process(process, lambda x, t: exact(x, t).to(dtype), keys, SHAPE, SamplingConfig(steps=4))
    assert all(step.probabilities.dtype == torch.float32 for step in chain)


@pytest.mark.parametrize("last_step", ["argmax", "draw"])
def test_a_certain_denoiser_gives_its_label_map(last_step: Any) -> None:
    truth = torch.randint(NUM_CLASSES, (3, *SHAPE), generator=torch.Generator().manual_seed(0))
    logits = torch.where(truth[:, None] == torch.arange(NUM_CLASSES)[:, None, None], 200.0, 0.0)
    process, keys = brute.process(NUM_CLASSES), derive_key(torch.arange(3))
    for sampler, steps in itertools.product(SAMPLERS, (1, 3, 12)):
        sampling = SamplingConfig(steps=steps, sampler=sampler, last_step=last_step)
        *_, last = reverse_process(process, lambda x, t: logits, keys, SHAPE, sampling)
        assert torch.equal(last.x_s.long(), truth)


@pytest.mark.parametrize(
    "probabilities",
    [[0.5, 0.5], [0.9999, 0.0001], [0.4, 0.3999, 0.2, 0.0001], [1e-4] * 19 + [1 - 19e-4], [0.0, 0.7, 0.3], [0.05] * 20],
    ids=["even", "rare", "mixed", "many rare", "impossible", "uniform"],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_draws_have_the_frequencies_of_their_probabilities(probabilities: list[float], dtype: torch.dtype) -> None:
    """Chi-square over 400 000 draws; with these keys every p-value is above 1e-3."""
    p = torch.tensor(probabilities, dtype=torch.float64)
    keys = derive_key("draws", len(p), torch.arange(4))
    drawn = draw(p.to(dtype)[None, :, None, None].expand(4, -1, 250, 400), keys)
    counts = torch.bincount(drawn.flatten(), minlength=len(p))
    possible = p > 0
    assert (counts[~possible] == 0).all()
    assert stats.chisquare(counts[possible], p[possible] / p.sum() * counts.sum()).pvalue > 1e-3


@pytest.mark.parametrize(("sampler", "expected"), [("coherent", 0.1), ("ancestral", 0.064)])
def test_an_object_of_many_pixels_is_there_as_often_as_it_should_be(sampler: str, expected: float) -> None:
    """All 64 pixels are of class 1 with probability 0.1, or none is; `brute.share_of_objects` gives the 0.064."""
    process, shape, logit = brute.process(2, 250), (8, 8), math.log(0.1 / 0.9)

    def exact(x_t: Tensor, t: Tensor) -> Tensor:
        abar = process.alpha_bar[t]
        excess = 2 * x_t.double().sum((1, 2)) - x_t[0].numel()
        value = logit + excess * torch.log((1 + abar) / (1 - abar))
        return torch.stack([-value / 2, value / 2], 1)[:, :, None, None].expand(-1, -1, *shape)

    keys, sampling = derive_key(torch.arange(4000)), SamplingConfig(steps=10, sampler=sampler)
    *_, last = reverse_process(process, exact, keys, shape, sampling)
    means = last.x_s.double().mean((1, 2))
    assert set(means.tolist()) == {0, 1}
    assert float(means.mean()) == pytest.approx(expected, abs=0.012)  # 2.5 standard deviations


def test_coherent_draws_of_close_pixels_agree_and_keep_the_probabilities_of_every_pixel() -> None:
    process, keys = brute.process(3, 250), derive_key("coherent", torch.arange(20_000))
    p = torch.tensor([[0.5, 0.2, 0.3], [0.5, 0.2, 0.3], [0.6, 0.1, 0.3]], dtype=torch.float64).T[None, :, None]
    sampling = SamplingConfig(steps=1, sampler="coherent", correlation_length=1e6)
    logits = p.log().expand(len(keys), -1, -1, -1)
    (step,) = reverse_process(process, lambda x, t: logits, keys, (1, 3), sampling)
    maps = step.x_s[:, 0]
    assert torch.equal(maps[:, 0], maps[:, 1])
    frequencies = torch.stack([(maps == label).double().mean(0) for label in range(3)])
    torch.testing.assert_close(frequencies, p[0, :, 0], atol=0.012, rtol=0)
    # the smallest probability of two different pixels with the same numbers: the total variation of their distributions
    assert float((maps[:, 1] != maps[:, 2]).double().mean()) < 0.15 < 1 - float((p[0, :, 0, 1] * p[0, :, 0, 2]).sum())
