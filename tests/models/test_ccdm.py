"""The model as people call it: what its samples and its loss depend on, and what not."""

import functools

import pytest
import torch
from torch import Tensor

from metrics import ged
from models import CCDM
from tests import tiny
from utils.errors import UserError
from utils.noise import derive_key

NUM_IMAGES, NUM_SAMPLES, STEPS = 7, 3, 4


@functools.cache
def drawn(batch: int, max_batch_size: int, double: bool, seed: int = 0, num_samples: int = NUM_SAMPLES) -> Tensor:
    """Samples of the same seven images, `batch` images and at most `max_batch_size` label maps at a time."""
    model, images = tiny.model(), tiny.images(NUM_IMAGES)
    if double:
        model, images = model.double(), images.double()
    packs = [
        model.sample(pack, num_samples, STEPS, seed=seed, max_batch_size=max_batch_size) for pack in images.split(batch)
    ]
    return torch.cat([pack.labels for pack in packs])


def loss_of(model: CCDM, images: Tensor, labels: Tensor, indices: Tensor, weights: Tensor | None = None) -> Tensor:
    return model.loss(images, labels, derive_key("test", indices), weights)


def test_samples_vary_between_images_samples_and_classes() -> None:
    labels = drawn(7, 64, double=False)
    assert labels.shape == (NUM_IMAGES, NUM_SAMPLES, tiny.SIDE, tiny.SIDE)
    assert labels.dtype == torch.uint8
    assert 0.05 < labels.double().mean() < 0.95
    assert len(labels.flatten(0, 1).flatten(1).unique(dim=0)) == NUM_IMAGES * NUM_SAMPLES


@pytest.mark.parametrize(("batch", "max_batch_size"), [(1, 64), (7, 1), (7, 5), (3, 2)])
def test_double_precision_samples_do_not_depend_on_the_batch(batch: int, max_batch_size: int) -> None:
    assert torch.equal(drawn(batch, max_batch_size, double=True), drawn(7, 64, double=True))


@pytest.mark.parametrize(("batch", "max_batch_size"), [(1, 64), (7, 1), (7, 5), (3, 2)])
def test_single_precision_samples_hardly_depend_on_the_batch(batch: int, max_batch_size: int) -> None:
    here, there = drawn(batch, max_batch_size, double=False), drawn(7, 64, double=False)
    assert (here == there).double().mean() >= 0.999
    annotators = torch.randint(2, (NUM_IMAGES, 4, tiny.SIDE, tiny.SIDE), generator=torch.Generator().manual_seed(3))
    distances = [ged(annotators, samples, 2).ged.mean().item() for samples in (here, there)]
    assert distances[0] == pytest.approx(distances[1], abs=1e-3)


def test_double_precision_stays_double_throughout() -> None:
    model, images = tiny.model().double(), tiny.images(2).double()
    seen: list[torch.dtype] = []
    for module in model.modules():
        module.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    steps = list(model.trajectory(images, STEPS))
    assert {step.probabilities.dtype for step in steps} == {torch.float64}
    loss = loss_of(model, images, torch.zeros(2, tiny.SIDE, tiny.SIDE, dtype=torch.uint8), torch.arange(2))
    assert loss.dtype == torch.float64
    assert len(seen) > 50
    assert set(seen) == {torch.float64}


def test_asking_for_more_samples_leaves_the_first_ones() -> None:
    many = drawn(7, 64, double=True, num_samples=5)
    assert torch.equal(many[:, :NUM_SAMPLES], drawn(7, 64, double=True))


def test_another_seed_gives_other_samples_and_the_same_seed_the_same() -> None:
    again = tiny.model().sample(tiny.images(NUM_IMAGES), NUM_SAMPLES, STEPS, seed=0).labels
    assert torch.equal(again, drawn(7, 64, double=False))
    other = drawn(7, 64, double=False, seed=1)
    assert (other != again).flatten(2).any(-1).all()


def test_samples_follow_their_image_when_the_batch_is_shuffled() -> None:
    model, images, order = tiny.model().double(), tiny.images(NUM_IMAGES).double(), torch.tensor([3, 0, 6, 1, 5, 2, 4])
    assert torch.equal(model.sample(images[order], NUM_SAMPLES, STEPS).labels, drawn(7, 64, double=True)[order])


def test_keys_take_the_place_of_the_images_digests() -> None:
    model, images, keys = tiny.model(), tiny.images(1).expand(2, -1, -1, -1), torch.tensor([5, 6])
    one, two = model.sample(images, 1, STEPS, keys=keys).labels
    assert not torch.equal(one, two)
    one, two = model.sample(images, 1, STEPS, keys=keys[[0, 0]]).labels
    assert torch.equal(one, two)


@pytest.mark.parametrize("max_batch_size", [1, 4, 64])
def test_probabilities_are_the_mean_of_those_of_the_last_steps(max_batch_size: int) -> None:
    model, images = tiny.model(num_classes=3), tiny.images(2)
    samples = model.sample(images, 3, STEPS, max_batch_size=max_batch_size)
    assert samples.probabilities.shape == (2, 3, tiny.SIDE, tiny.SIDE)
    assert torch.allclose(samples.probabilities.sum(1), torch.ones(2, tiny.SIDE, tiny.SIDE), atol=1e-5)
    (*_, last) = model.trajectory(images, STEPS)
    assert torch.allclose(model.sample(images, 1, STEPS).probabilities, last.probabilities, atol=1e-6)


def test_trajectory_ends_with_the_sample() -> None:
    model, images = tiny.model(), tiny.images(2)
    steps = list(model.trajectory(images, STEPS, seed=4))
    assert [step.s for step in steps][-1] == 0
    assert len(steps) == STEPS
    assert torch.equal(steps[-1].x_s, model.sample(images, 1, STEPS, seed=4).labels[:, 0])


def test_all_time_steps_are_taken_by_default() -> None:
    assert len(list(tiny.model().trajectory(tiny.images(1)))) == tiny.PROCESS.time_steps


@pytest.mark.parametrize("shape", [(2, 8, 8), (1, 2, 8, 8), (1, 3, 8, 8), (8,)])
def test_images_of_another_shape_are_refused_everywhere(shape: tuple[int, ...]) -> None:
    model, images = tiny.model(), torch.zeros(shape)
    labels, keys = torch.zeros(1, 8, 8, dtype=torch.uint8), torch.zeros(1, dtype=torch.int64)
    for call in (
        lambda: model.sample(images),
        lambda: model.loss(images, labels, keys),
        lambda: model.bits_per_pixel(images, labels),
        lambda: list(model.trajectory(images)),
    ):
        with pytest.raises(UserError, match="the network takes batch x 1 x H x W"):
            call()


@pytest.mark.parametrize(
    "numbers",
    [{"num_samples": 0}, {"max_batch_size": 0}, {"steps": 0}, {"steps": 51}, {"sampler": "euler"}, {"eta": 2.0}],
)
def test_impossible_arguments_are_refused(numbers: dict[str, int]) -> None:
    with pytest.raises(UserError):
        tiny.model().sample(tiny.images(1), **numbers)  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [(30, 21), (1, 1), (5, 16)])
def test_sizes_that_the_network_cannot_halve_work_end_to_end(size: tuple[int, int]) -> None:
    model, images = tiny.model(channel_mult=(1, 1, 1)), tiny.images(2, size=size)
    labels = model.sample(images, 2, STEPS).labels
    assert labels.shape == (2, 2, *size)
    loss = loss_of(model, images, labels[:, 0], torch.arange(2)).sum()
    loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_loss_of_an_image_does_not_depend_on_its_batch() -> None:
    model, images = tiny.model().double(), tiny.images(NUM_IMAGES).double()
    labels = drawn(7, 64, double=True)[:, 0]
    together = loss_of(model, images, labels, torch.arange(NUM_IMAGES))
    alone = [loss_of(model, images[i : i + 1], labels[i : i + 1], torch.tensor([i])) for i in range(NUM_IMAGES)]
    assert together.shape == (NUM_IMAGES,)
    assert torch.allclose(together, torch.cat(alone), rtol=1e-11, atol=0)


def test_loss_depends_on_the_key_and_not_on_a_global_stream() -> None:
    model, images, labels = tiny.model(), tiny.images(1), torch.zeros(1, tiny.SIDE, tiny.SIDE, dtype=torch.uint8)
    state = torch.get_rng_state()
    losses = [loss_of(model, images, labels, torch.tensor([key])).item() for key in (0, 0, 1)]
    assert losses[0] == losses[1] != losses[2]
    assert torch.equal(torch.get_rng_state(), state)


def test_class_of_weight_zero_does_not_count() -> None:
    model, images = tiny.model(num_classes=3), tiny.images(4)
    labels = torch.randint(3, (4, tiny.SIDE, tiny.SIDE), generator=torch.Generator().manual_seed(0))
    each = [loss_of(model, images, labels, torch.arange(4), weights) for weights in torch.eye(3)]
    assert torch.allclose(sum(each), loss_of(model, images, labels, torch.arange(4)), rtol=1e-5)
    weighted = loss_of(model, images, labels, torch.arange(4), torch.tensor([2.0, 0.0, 0.5]))
    assert torch.allclose(weighted, 2 * each[0] + 0.5 * each[2], rtol=1e-5)
    void = torch.full_like(labels, 1)
    assert (loss_of(model, images, void, torch.arange(4), torch.tensor([1.0, 0.0, 1.0])) == 0).all()


def test_bits_per_pixel_are_positive_and_finite() -> None:
    model, images = tiny.model(), tiny.images(2)
    bits = model.bits_per_pixel(images, model.sample(images, 1, STEPS).labels[:, 0])
    assert (bits.shape, bits.dtype) == ((2,), torch.float64)
    assert bits.isfinite().all()
    assert (bits > 0).all()


def test_bits_per_pixel_of_a_certain_and_right_model_vanish() -> None:
    model, images, labels = tiny.model(), tiny.images(2), torch.zeros(2, tiny.SIDE, tiny.SIDE, dtype=torch.uint8)
    torch.nn.init.zeros_(model.unet.out[-1].weight)
    with torch.no_grad():
        model.unet.out[-1].bias.copy_(torch.tensor([40.0, 0.0]))
    assert (model.bits_per_pixel(images, labels) < 2e-3).all()
    assert (model.bits_per_pixel(images, 1 - labels) > 40).all()


def test_ignorant_model_needs_at_least_one_bit_per_pixel_of_two_classes() -> None:
    model, images = tiny.model(), tiny.images(2)
    for parameter in (model.unet.out[-1].weight, model.unet.out[-1].bias):
        torch.nn.init.zeros_(parameter)
    labels = torch.zeros(2, tiny.SIDE, tiny.SIDE, dtype=torch.uint8)
    assert model.bits_per_pixel(images, labels).mean().item() > 0.95
