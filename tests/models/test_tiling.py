"""Tiles: where they are, how they are blended, and that samples show no trace of them."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from diffusion import SamplingConfig
from models import CCDM, DinoEncoder
from models.tiling import Axis, TileGrid
from tests import tiny
from tests.models import dinos

THREE_STEPS = SamplingConfig(steps=3)


@pytest.mark.parametrize("length", [1, 15, 16, 17, 40, 97, 500])
@pytest.mark.parametrize("side", [1, 16, 24, 30])
@pytest.mark.parametrize("multiple", [1, 4, 8])
def test_tiles_cover_the_image_fit_the_network_and_have_weights_that_sum_to_one(
    length: int, side: int, multiple: int
) -> None:
    axis = Axis.cover(length, side, multiple)
    assert axis.starts[0] == 0
    assert axis.starts[-1] + axis.side == axis.padded
    assert 0 <= axis.padded - length < multiple
    assert all(number % multiple == 0 for number in (axis.padded, axis.side, *axis.starts))
    assert axis.side < max(side, 2 * multiple) + multiple
    overlaps = [one + axis.side - other for one, other in zip(axis.starts, axis.starts[1:], strict=False)]
    assert all(axis.side > overlap >= 2 * axis.blend > 0 for overlap in overlaps)
    total = torch.zeros(axis.padded, dtype=torch.float64)
    for start, weights in zip(axis.starts, axis.weights(), strict=True):
        assert (weights >= 0).all()
        total[start : start + axis.side] += weights
    assert torch.allclose(total, torch.ones_like(total), rtol=0, atol=1e-14)


class LocalNetwork(nn.Module):
    """Its receptive field is `reach` pixels and, as in strided networks, the block of 4 x 4 pixels around a pixel."""

    stride = 4

    def __init__(self, num_classes: int = 3, reach: int = 2) -> None:
        super().__init__()
        self.num_classes, self.reach = num_classes, reach
        self.seen: list[tuple[int, ...]] = []
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.mix = nn.Conv2d(2 * (num_classes + 1), num_classes, 2 * reach + 1)

    def forward(self, x_t: Tensor, t: Tensor, images: Tensor) -> Tensor:
        self.seen.append(tuple(x_t.shape))
        height, width = x_t.shape[-2:]
        classes = functional.one_hot(x_t.long(), self.num_classes).movedim(-1, 1).to(images.dtype)
        inputs = torch.cat([classes, images], dim=1)
        inputs = functional.pad(inputs, (0, -width % 4, 0, -height % 4), mode="replicate")
        blocks = functional.interpolate(functional.avg_pool2d(inputs, 4), scale_factor=4, mode="nearest")
        padded = functional.pad(torch.cat([inputs, blocks], dim=1), (self.reach,) * 4, mode="replicate")
        return 4 * self.mix(padded)[..., :height, :width] * (1 + t[:, None, None, None] / 50)


def local_model(reach: int = 2) -> tuple[CCDM, LocalNetwork]:
    network = LocalNetwork(reach=reach)
    return CCDM(network, tiny.model(3).process).double(), network


@pytest.mark.parametrize("sampler", ["ancestral", "ddim"])
@pytest.mark.parametrize("size", [(45, 70), (16, 100), (64, 17), (33, 33)])
def test_network_that_sees_less_than_the_overlap_samples_the_same_in_tiles(size: tuple[int, int], sampler: str) -> None:
    (model, network), images = local_model(), tiny.images(2, size=size).double()
    sampling = SamplingConfig(steps=6, sampler=sampler)
    whole = model.sample(images, 3, sampling)
    network.seen.clear()
    tiled = model.sample(images, 3, sampling, tile=(32, 32), max_batch_size=5)
    assert len(whole.labels.unique()) == 3
    assert len(TileGrid.cover(size, (32, 32), 4)) > 1
    assert torch.equal(tiled.labels, whole.labels)
    assert torch.allclose(tiled.probabilities, whole.probabilities, atol=1e-6)
    assert max(shape[0] for shape in network.seen) <= 5
    assert {shape[1:] for shape in network.seen} == {tuple(min(32, -(-side // 4) * 4) for side in size)}


def test_network_that_sees_further_samples_differently_in_tiles() -> None:
    (model, _), images = local_model(reach=6), tiny.images(1, size=(45, 70)).double()
    whole, tiled = (model.sample(images, 1, SamplingConfig(steps=6), tile=tile).labels for tile in (None, (32, 32)))
    assert 0 < (whole != tiled).double().mean() < 0.3


def test_image_that_fits_into_a_tile_is_sampled_as_without_tiles() -> None:
    model, images = tiny.model(channel_mult=(1, 1)), tiny.images(2, size=(15, 12))
    whole, tiled = (model.sample(images, 2, THREE_STEPS, tile=tile) for tile in (None, (16, 16)))
    assert torch.equal(whole.labels, tiled.labels)
    assert torch.equal(whole.probabilities, tiled.probabilities)


def test_samples_in_tiles_do_not_depend_on_the_batch() -> None:
    model, images = tiny.model(channel_mult=(1, 1)).double(), tiny.images(2, size=(20, 26)).double()
    together = model.sample(images, 2, THREE_STEPS, tile=(8, 8)).labels
    alone = torch.cat(
        [model.sample(image[None], 2, THREE_STEPS, tile=(8, 8), max_batch_size=1).labels for image in images]
    )
    assert torch.equal(together, alone)


@pytest.mark.parametrize(("size", "tile"), [((20, 27), (64, 64)), ((40, 24), (16, 24))])
def test_features_are_computed_once_per_tile_for_images_of_any_size(
    size: tuple[int, int], tile: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, images, seen, forward = dinos.model(), tiny.images(1, 3, size), [], DinoEncoder.forward
    monkeypatch.setattr(DinoEncoder, "forward", lambda self, tiles: (seen.append(tiles.shape), forward(self, tiles))[1])
    samples = model.sample(images, 2, THREE_STEPS, tile=tile)
    assert samples.labels.shape == (1, 2, *size)
    assert samples.probabilities.isfinite().all()
    assert sum(shape[0] for shape in seen) == len(TileGrid.cover(size, tile, 8))
    assert all(shape[2] % 8 == shape[3] % 8 == 0 for shape in seen)
