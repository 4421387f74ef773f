"""The model as users call it: what its samples and its loss depend on, and what they do not."""

import functools
from typing import Any

import pytest
import torch
from torch import Tensor

from diffusion import SamplingConfig
from metrics import ged
from models import CCDM, UNet
from tests import tiny
from utils.errors import UserError
from utils.noise import derive_key

NUM_IMAGES, NUM_SAMPLES = 7, 3
FOUR_STEPS = SamplingConfig(steps=4)

per_batch = pytest.mark.parametrize(("batch", "max_batch_size"), [(1, 64), (7, 1), (7, 5), (3, 2)])


@functools.cache
def sampled(batch: int, max_batch_size: int, double: bool, seed: int = 0, num_samples: int = NUM_SAMPLES) -> Tensor:
    """Samples of the same seven images, `batch` images and at most `max_batch_size` label maps at a time."""
    model, images = tiny.model(), tiny.images(NUM_IMAGES)
    if double:
        model, images = model.double(), images.double()
    parts = [
        model.sample(part, num_samples, FOUR_STEPS, seed, max_batch_size=max_batch_size).labels
        for part in images.split(batch)
    ]
    return torch.cat(parts)


def loss_of(model: CCDM, images: Tensor, labels: Tensor, indices: Tensor, weights: Tensor | None = None) -> Tensor:
    return model.loss(images, labels, derive_key("test", indices), weights)


def random_labels(number: int, num_classes: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(num_classes, (number, tiny.SIDE, tiny.SIDE), generator=generator, dtype=torch.uint8)


def test_samples_vary_between_images_samples_and_classes() -> None:
    labels = sampled(7, 64, double=False)
    assert labels.shape == (NUM_IMAGES, NUM_SAMPLES, tiny.SIDE, tiny.SIDE)
    assert labels.dtype == torch.uint8
    assert 0.05 < labels.double().mean() < 0.95
    assert len(labels.flatten(0, 1).flatten(1).unique(dim=0)) == NUM_IMAGES * NUM_SAMPLES


@per_batch
def test_double_precision_samples_do_not_depend_on_the_batch(batch: int, max_batch_size: int) -> None:
    assert torch.equal(sampled(batch, max_batch_size, double=True), sampled(7, 64, double=True))


@per_batch
def test_single_precision_samples_hardly_depend_on_the_batch(batch: int, max_batch_size: int) -> None:
    here, there = sampled(batch, max_batch_size, double=False), sampled(7, 64, double=False)
    assert (here == there).double().mean() >= 0.999
    annotators = torch.randint(2, (NUM_IMAGES, 4, tiny.SIDE, tiny.SIDE), generator=torch.Generator().manual_seed(3))
    distances = [ged(annotators, samples, 2).ged.mean().item() for samples in (here, there)]
    assert distances[0] == pytest.approx(distances[1], abs=1e-3)


def test_double_precision_is_kept_throughout() -> None:
    model, images = tiny.model().double(), tiny.images(2).double()
    seen: list[torch.dtype] = []
    for module in model.modules():
        module.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    (chunk,) = model.iter_samples(images, 1, FOUR_STEPS)
    loss = loss_of(model, images, random_labels(2), torch.arange(2))
    assert chunk.probabilities.dtype == loss.dtype == torch.float64
    assert len(seen) > 50
    assert set(seen) == {torch.float64}


def test_more_samples_leave_the_first_ones_unchanged() -> None:
    many = sampled(7, 64, double=True, num_samples=5)
    assert torch.equal(many[:, :NUM_SAMPLES], sampled(7, 64, double=True))


def test_the_seed_determines_the_samples() -> None:
    again = tiny.model().sample(tiny.images(NUM_IMAGES), NUM_SAMPLES, FOUR_STEPS, seed=0).labels
    assert torch.equal(again, sampled(7, 64, double=False))
    other = sampled(7, 64, double=False, seed=1)
    assert (other != again).flatten(2).any(-1).all()


def test_keys_replace_the_digests_of_the_images() -> None:
    model, images, keys = tiny.model(), tiny.images(1).expand(2, -1, -1, -1), torch.tensor([5, 6])
    one, two = model.sample(images, 1, FOUR_STEPS, keys=keys).labels
    assert not torch.equal(one, two)
    one, two = model.sample(images, 1, FOUR_STEPS, keys=keys[[0, 0]]).labels
    assert torch.equal(one, two)


@pytest.mark.parametrize("max_batch_size", [1, 4, 64])
def test_chunks_contain_every_sample_once_with_its_probabilities(max_batch_size: int) -> None:
    model, images = tiny.model(num_classes=3), tiny.images(2)
    whole = model.sample(images, 3, FOUR_STEPS, max_batch_size=max_batch_size)
    chunks = list(model.iter_samples(images, 3, FOUR_STEPS, max_batch_size=max_batch_size))
    assert max(len(chunk.labels) for chunk in chunks) <= max_batch_size
    image_index, sample_index, labels, probabilities = (torch.cat(part) for part in zip(*chunks, strict=True))
    assert (3 * image_index + sample_index).tolist() == list(range(6))
    assert torch.equal(labels.view_as(whole.labels), whole.labels)
    assert torch.equal(probabilities.argmax(1).to(torch.uint8), labels)
    torch.testing.assert_close(whole.probabilities, probabilities.unflatten(0, (2, 3)).mean(1))
    torch.testing.assert_close(whole.probabilities.sum(1), torch.ones(2, tiny.SIDE, tiny.SIDE))


@pytest.mark.parametrize(("tile", "calls"), [(None, 2), ((tiny.SIDE // 2, tiny.SIDE), 6)])
def test_progress_moves_with_every_call_of_the_network(tile: tuple[int, int] | None, calls: int) -> None:
    model, moves = tiny.model(), list[float]()
    model.fill_chunks = True  # the second chunk has one label map, and another only to fill it
    model.sample(tiny.images(1), 3, FOUR_STEPS, max_batch_size=2, tile=tile, progress=moves.append)
    assert len([move for move in moves if move > 0]) == 4 * calls
    assert max(moves) <= 2 / 4
    assert sum(moves) == pytest.approx(3)


def test_trajectory_goes_from_noise_to_the_sample() -> None:
    model, images = tiny.model(), tiny.images(2)
    times, maps = zip(*model.trajectory(images, FOUR_STEPS, seed=4), strict=True)
    assert (times[0], times[-1], len(times)) == (tiny.TIME_STEPS, 0, 5)
    assert list(times) == sorted(times, reverse=True)
    assert all(map_.shape == (2, tiny.SIDE, tiny.SIDE) and map_.dtype == torch.uint8 for map_ in maps)
    assert torch.equal(maps[-1], model.sample(images, 1, FOUR_STEPS, seed=4).labels[:, 0])
    assert 0.3 < maps[0].double().mean() < 0.7


@pytest.mark.parametrize("shape", [(2, 8, 8), (1, 2, 8, 8), (1, 3, 8, 8), (8,)])
def test_images_of_another_shape_are_refused_everywhere(shape: tuple[int, ...]) -> None:
    model, images, labels = tiny.model(), torch.zeros(shape), random_labels(1)
    for call in (
        lambda: model.sample(images),
        lambda: model.loss(images, labels, torch.zeros(1, dtype=torch.int64)),
        lambda: model.bits_per_pixel(images, labels),
        lambda: list(model.trajectory(images)),
    ):
        with pytest.raises(UserError, match=r"images have shape .* (expects B x 1|B x channels) x H x W"):
            call()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_samples": 0}, "num_samples is 0; it must be at least 1"),
        ({"num_samples": -1}, "num_samples is -1"),
        ({"max_batch_size": 0}, "max_batch_size is 0"),
        ({"sampling": SamplingConfig(steps=51)}, "51 sampling steps requested, but the process has 50"),
        ({"tile": (0, 16)}, "tiles of 0 x 16 pixels"),
        ({"keys": torch.arange(2)}, r"keys have shape \(2,\); expected one for each of 1 images"),
        ({"tile": (16, -1)}, "tiles of 16 x -1 pixels"),
    ],
)
def test_impossible_arguments_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        tiny.model().sample(tiny.images(1), **arguments)


@pytest.mark.parametrize("size", [(30, 21), (1, 1), (5, 16)])
def test_sizes_that_the_network_cannot_halve_work_end_to_end(size: tuple[int, int]) -> None:
    model, images = tiny.model(channel_mult=(1, 1, 1)), tiny.images(2, size=size)
    labels = model.sample(images, 2, FOUR_STEPS).labels
    assert labels.shape == (2, 2, *size)
    loss = loss_of(model, images, labels[:, 0], torch.arange(2)).sum()
    loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_loss_of_an_image_does_not_depend_on_its_batch() -> None:
    model, images, labels = tiny.model().double(), tiny.images(NUM_IMAGES).double(), random_labels(NUM_IMAGES)
    together = loss_of(model, images, labels, torch.arange(NUM_IMAGES))
    alone = [loss_of(model, images[i : i + 1], labels[i : i + 1], torch.tensor([i])) for i in range(NUM_IMAGES)]
    assert together.shape == (NUM_IMAGES,)
    assert torch.allclose(together, torch.cat(alone), rtol=1e-11, atol=0)


def test_loss_is_a_function_of_the_key() -> None:
    model, images, labels = tiny.model(), tiny.images(1), random_labels(1)
    state = torch.get_rng_state()
    losses = [loss_of(model, images, labels, torch.tensor([key])).item() for key in (0, 0, 1)]
    assert losses[0] == losses[1] != losses[2]
    assert torch.equal(torch.get_rng_state(), state)


def test_loss_without_keys_follows_the_seed_of_pytorch() -> None:
    model, images, labels, losses = tiny.model(), tiny.images(2), random_labels(2), []
    with torch.random.fork_rng(devices=[]):
        for seed in (0, 0, 1):
            torch.manual_seed(seed)
            losses.append(model.loss(images, labels).tolist())
        losses.append(model.loss(images, labels).tolist())
    assert losses[0] == losses[1]
    assert losses[0] != losses[2] != losses[3]


def test_pixels_of_weight_zero_have_no_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    model, labels = tiny.model(num_classes=3), random_labels(4, 3)
    logits = torch.randn(4, 3, tiny.SIDE, tiny.SIDE, generator=torch.Generator().manual_seed(0)).requires_grad_()
    monkeypatch.setattr(CCDM, "forward", lambda self, *inputs: logits)
    loss_of(model, tiny.images(4), labels, torch.arange(4), torch.tensor([1.0, 1.0, 0.0])).sum().backward()
    assert logits.grad is not None
    gradient, void = logits.grad.movedim(1, -1), labels == 2
    assert (gradient[void] == 0).all()
    assert (gradient[~void] != 0).any(-1).all()


def test_bits_per_pixel_of_a_certain_and_correct_model_vanish() -> None:
    model, images, labels = tiny.model(), tiny.images(2), torch.zeros(2, tiny.SIDE, tiny.SIDE, dtype=torch.uint8)
    torch.nn.init.zeros_(model.network.out[-1].weight)
    with torch.no_grad():
        model.network.out[-1].bias.copy_(torch.tensor([40.0, 0.0]))
    bits = model.bits_per_pixel(images, labels)
    assert (bits.shape, bits.dtype) == ((2,), torch.float64)
    assert ((bits > 0) & (bits < 2e-3)).all()
    assert (model.bits_per_pixel(images, 1 - labels) > 40).all()


def test_ignorant_model_needs_about_one_bit_per_pixel_of_two_classes() -> None:
    model = CCDM(UNet(tiny.unet_config()), tiny.model().process)
    assert model.bits_per_pixel(tiny.images(2), random_labels(2)).mean().item() > 0.95
