"""Whole reverse processes, computed exactly: with the exact denoiser of a joint distribution, samples follow it.

The joints live on a row of few pixels, so that the distribution after all steps is a product of matrices over label
maps and nothing is random. A step draws pixels independently, so no sampler is exact at few steps; the bounds are
about four (250 steps) and 1.2 times (25 steps) the measured errors.
"""

import itertools

import pytest
import torch
from torch import Tensor

from diffusion import SamplingConfig, UniformDiffusion, reverse_process, time_grid
from tests.diffusion import brute_force as brute
from utils.noise import derive_key

SHAPES = ((2, 4), (3, 3))
JOINTS = ("copies", "chain", "rough", "parity")

per_sampler = pytest.mark.parametrize("sampler", ["ancestral", "ddim"])
per_joint = pytest.mark.parametrize("joint", JOINTS)
per_shape = pytest.mark.parametrize(("num_classes", "pixels"), SHAPES)


def joint_distribution(name: str, states: Tensor) -> Tensor:
    """Strongly correlated distributions over `states`.

    copies: all pixels have the same random class. chain: neighbours prefer to agree, by a factor of e^2, plus noise.
    rough: every label map has its own log-normal weight. parity: the sum of the classes is divisible by C, so that no
    two pixels are correlated, but all of them together are.
    """
    generator = torch.Generator().manual_seed(2)
    noise = torch.randn(len(states), generator=generator, dtype=torch.float64)
    num_classes = int(states.max()) + 1
    if name == "copies":
        weights = 0.8 * 0.25 ** states[:, 0].double()
        return torch.where((states == states[:, :1]).all(1), weights, 0) / weights.unique().sum()
    if name == "chain":
        return (2.0 * (states[:, 1:] == states[:, :-1]).sum(1) + 0.5 * noise).softmax(0)
    if name == "rough":
        return (2 * noise).softmax(0)
    even = (states.sum(1) % num_classes == 0).double()
    return even / even.sum()


def distance(
    name: str, num_classes: int, pixels: int, steps: int, sampler: str, eta: float = 0.0, T: int = 250
) -> float:
    """Total variation between the joint and the samples of its exact denoiser."""
    process, states = brute.process(num_classes, T), brute.all_states(num_classes, pixels)
    joint = joint_distribution(name, states)
    predict = brute.exact_denoiser(process, joint, states)
    grid = time_grid(process.alpha_bar, steps)
    return brute.total_variation(joint, brute.distribution_of_samples(process, predict, states, grid, sampler, eta))


@per_shape
@per_joint
def test_the_joints_are_correlated_distributions(joint: str, num_classes: int, pixels: int) -> None:
    states = brute.all_states(num_classes, pixels)
    p = joint_distribution(joint, states)
    assert float(p.sum()) == pytest.approx(1, abs=1e-12)
    independent = torch.ones_like(p)
    for pixel in range(pixels):
        marginal = torch.zeros(num_classes, dtype=torch.float64).index_add_(0, states[:, pixel], p)
        independent *= marginal[states[:, pixel]]
    assert brute.total_variation(p, independent) > 0.2


@per_sampler
@per_joint
@per_shape
@pytest.mark.parametrize("steps", [250, 25])
def test_samples_follow_the_joint(sampler: str, joint: str, num_classes: int, pixels: int, steps: int) -> None:
    few = 0.2 if joint == "parity" else 0.06  # parity is decided in the last steps, which the grid keeps few
    bound = 0.01 if steps == 250 else few
    assert distance(joint, num_classes, pixels, steps, sampler) <= bound


@per_joint
def test_coherent_samples_follow_the_joint_in_many_steps(joint: str) -> None:
    assert distance_of_coherent_samples(joint, 2, 4, 250) < 0.025


@pytest.mark.parametrize("joint", ["copies", "chain"])
@per_shape
def test_coherent_samples_of_pixels_that_agree_are_closer_in_few_steps(
    joint: str, num_classes: int, pixels: int
) -> None:
    independent = distance(joint, num_classes, pixels, 5, "ancestral")
    assert distance_of_coherent_samples(joint, num_classes, pixels, 5) < 0.85 * independent


def distance_of_coherent_samples(name: str, num_classes: int, pixels: int, steps: int) -> float:
    """The same of 10,000 samples of `coherent`, the last step drawn; chance alone makes it about 0.015."""
    process, states = brute.process(num_classes, 250), brute.all_states(num_classes, pixels)
    joint = joint_distribution(name, states)
    predict = brute.exact_denoiser(process, joint, states)
    places = num_classes ** torch.arange(pixels - 1, -1, -1)

    def denoiser(x_t: Tensor, t: Tensor) -> Tensor:
        return predict(states, int(t[0]))[(x_t[:, 0] * places).sum(1)].log()[:, :, None]

    keys, sampling = derive_key(torch.arange(10_000)), SamplingConfig(steps=steps, sampler="coherent", last_step="draw")
    *_, last = reverse_process(process, denoiser, keys, (1, pixels), sampling)
    counts = torch.bincount((last.x_s[:, 0] * places).sum(1), minlength=len(states))
    return brute.total_variation(joint, counts / len(keys))


@pytest.mark.parametrize("probability", [0.1, 0.3])
@pytest.mark.parametrize(("pixels", "bound"), [(16, 0.035), (64, 0.045)])
def test_ten_steps_show_an_object_of_many_pixels_as_often_as_it_is_there(
    pixels: int, bound: float, probability: float
) -> None:
    process = brute.process(2, 250)
    grids = time_grid(process.alpha_bar, 10), list(range(250, -1, -25)), equal_angles(process, 10)
    error, of_even_times, of_angles = (
        abs(brute.share_of_objects(process, pixels, probability, grid) - probability) for grid in grids
    )
    assert error < bound
    assert error < 0.85 * of_even_times < of_angles


def equal_angles(process: UniformDiffusion, steps: int) -> list[int]:
    """The times at which arccos(abar_t) is closest to `steps` + 1 evenly spaced values."""
    angle = process.alpha_bar.arccos()
    places = torch.linspace(float(angle[-1]), 0, steps + 1)
    return [int((angle - place).abs().argmin()) for place in places]


@per_sampler
def test_the_error_falls_with_the_number_of_steps(sampler: str) -> None:
    errors = [distance("chain", 3, 3, steps, sampler) for steps in (5, 10, 25, 50, 125, 250)]
    assert all(later < 0.75 * earlier for earlier, later in itertools.pairwise(errors))


def test_one_step_draws_every_pixel_from_its_marginal() -> None:
    process, states = brute.process(2, 250), brute.all_states(2, 4)
    joint = joint_distribution("copies", states)
    predict = brute.exact_denoiser(process, joint, states)
    samples = brute.distribution_of_samples(process, predict, states, [250, 0], "ancestral")
    independent = torch.tensor([0.8, 0.2], dtype=torch.float64)[states].prod(1)
    # alpha-bar at T is 4e-5, so x_T says next to nothing about x_0
    assert brute.total_variation(samples, independent) < 1e-3


@per_sampler
@pytest.mark.parametrize("num_classes", brute.CLASSES)
def test_a_single_pixel_is_exact_in_any_number_of_steps(sampler: str, num_classes: int) -> None:
    process, states = brute.process(num_classes, 250), brute.all_states(num_classes, 1)
    joint = torch.rand(num_classes, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    joint /= joint.sum()
    predict = brute.exact_denoiser(process, joint, states)
    for steps in (1, 2, 7, 25):
        samples = brute.distribution_of_samples(process, predict, states, time_grid(process.alpha_bar, steps), sampler)
        # what is left is the signal at T, which sampling starts without
        assert brute.total_variation(samples, joint) < float(process.alpha_bar[-1])


@pytest.mark.filterwarnings("ignore:alpha_bar_T")
def test_ddim_with_eta_one_does_not_converge() -> None:
    """Redrawing every pixel loses the correlation of pixels; more steps redraw more often and lose no less."""
    errors = [distance("copies", 2, 4, T, "ddim", eta=1.0, T=T) for T in (100, 250, 1000)]
    assert min(errors) > 0.05
    assert errors[-1] >= errors[0]
    assert min(errors) > 20 * distance("copies", 2, 4, 250, "ddim", eta=0.0)
