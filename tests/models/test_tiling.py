"""Tiles: where they lie, how they are blended, and that they leave no trace in what is drawn."""

import os
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from models import CCDM
from models.tiling import Axis, TileGrid
from prediction import load_model, read_image
from tests import tiny
from tests.models import dinos, seams
from utils.errors import UserError

AXES = [
    (length, side, multiple)
    for length in (1, 15, 16, 17, 40, 97, 500)
    for side in (1, 16, 24, 30)
    for multiple in (1, 4, 8)
]


@pytest.mark.parametrize(("length", "side", "multiple"), AXES)
def test_weights_of_all_tiles_sum_to_one_at_every_pixel(length: int, side: int, multiple: int) -> None:
    axis = Axis.over(length, side, multiple)
    total = torch.zeros(axis.padded, dtype=torch.float64)
    for start, weights in zip(axis.starts, axis.weights(), strict=True):
        assert (weights >= 0).all()
        total[start : start + axis.side] += weights
    assert torch.allclose(total, torch.ones_like(total), rtol=0, atol=1e-14)


@pytest.mark.parametrize(("length", "side", "multiple"), AXES)
def test_tiles_cover_the_image_and_fit_the_network(length: int, side: int, multiple: int) -> None:
    axis = Axis.over(length, side, multiple)
    assert axis.starts[0] == 0
    assert axis.starts[-1] + axis.side == axis.padded
    assert 0 <= axis.padded - length < multiple
    assert all(number % multiple == 0 for number in (axis.padded, axis.side, *axis.starts))
    assert axis.side < max(side, 2 * multiple) + multiple
    overlaps = [one + axis.side - other for one, other in zip(axis.starts, axis.starts[1:], strict=False)]
    assert all(axis.side > overlap >= 2 * axis.blend > 0 for overlap in overlaps)


def test_image_that_fits_is_one_tile() -> None:
    assert Axis.over(32, 32, 4).starts == Axis.over(30, 32, 4).starts == (0,)
    assert len(Axis.over(33, 32, 4).starts) == 2
    assert TileGrid.over((32, 48), (32, 48), 4).is_image
    assert not TileGrid.over((32, 47), (32, 48), 4).is_image


def test_pixel_of_one_tile_alone_is_taken_from_it_exactly() -> None:
    axis = Axis.over(100, 32, 4)
    inside = [set(range(start, start + axis.side)) for start in axis.starts]
    for start, weights, own in zip(axis.starts, axis.weights(), inside, strict=True):
        others = set().union(*(other for other in inside if other is not own))
        alone = [pixel - start for pixel in own - others]
        assert (weights[alone] == 1).all()


def test_border_of_a_tile_counts_nothing_except_at_the_border_of_the_image() -> None:
    weights = Axis.over(100, 32, 4).weights()
    assert (weights[1:, :3] == 0).all()
    assert (weights[:-1, -3:] == 0).all()
    assert (weights[0, :3] == 1).all()
    assert (weights[-1, -3:] == 1).all()


def test_equal_opinions_blend_to_themselves() -> None:
    grid, constant = TileGrid.over((45, 70), (16, 24), 4), torch.rand(45, 70, dtype=torch.float64)
    blended = grid.empty(1, 1, constant)[0, 0]
    for (rows, columns), tile, weights in zip(grid.slices(), grid.cut(constant[None])[0], grid.weights(), strict=True):
        blended[rows, columns] += tile * weights
    assert torch.allclose(grid.uncut(blended), constant, rtol=1e-14, atol=0)


class LocalNetwork(nn.Module):
    """Sees 2 pixels in all directions and, as strided networks do, the block of 4 x 4 pixels that a pixel is in."""

    def __init__(self, num_classes: int = 3, reach: int = 2) -> None:
        super().__init__()
        self.shape, self.reach = tiny.network_shape(num_classes, channel_mult=(1, 1, 1)), reach
        self.seen: list[tuple[int, ...]] = []
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.mix = nn.Conv2d(2 * (num_classes + 1), num_classes, 2 * reach + 1)

    def forward(self, x_t: Tensor, t: Tensor, images: Tensor, features: Tensor | None) -> Tensor:
        self.seen.append(tuple(x_t.shape))
        height, width = x_t.shape[-2:]
        classes = functional.one_hot(x_t.long(), self.shape.num_classes).movedim(-1, 1).to(images.dtype)
        inputs = torch.cat([classes, images], dim=1)
        inputs = functional.pad(inputs, (0, -width % 4, 0, -height % 4), mode="replicate")
        blocks = functional.interpolate(functional.avg_pool2d(inputs, 4), scale_factor=4, mode="nearest")
        padded = functional.pad(torch.cat([inputs, blocks], dim=1), (self.reach,) * 4, mode="replicate")
        return 4 * self.mix(padded)[..., :height, :width] * (1 + t[:, None, None, None] / 50)


def local_model(reach: int = 2) -> tuple[CCDM, LocalNetwork]:
    model, network = tiny.model(3, channel_mult=(1, 1, 1)), LocalNetwork(reach=reach)
    model.unet = network  # type: ignore[assignment]
    return model.double(), network


@pytest.mark.parametrize("sampler", ["ancestral", "ddim"])
@pytest.mark.parametrize("size", [(45, 70), (16, 100), (64, 17), (33, 33)])
def test_network_that_sees_less_than_the_overlap_draws_the_same_in_tiles(size: tuple[int, int], sampler: str) -> None:
    (model, network), images = local_model(), tiny.images(2, size=size).double()
    whole = model.sample(images, 3, 6, sampler)
    network.seen.clear()
    tiled = model.sample(images, 3, 6, sampler, tile=(32, 32), max_batch_size=5)
    assert len(whole.labels.unique()) == 3
    assert len(TileGrid.over(size, (32, 32), 4)) > 1
    assert torch.equal(tiled.labels, whole.labels)
    assert torch.allclose(tiled.probabilities, whole.probabilities, atol=1e-6)
    assert max(shape[0] for shape in network.seen) <= 5
    assert {shape[1:] for shape in network.seen} == {tuple(min(32, -(-side // 4) * 4) for side in size)}


def test_network_that_sees_further_draws_other_maps_in_tiles() -> None:
    (model, _), images = local_model(reach=6), tiny.images(1, size=(45, 70)).double()
    whole, tiled = (model.sample(images, 1, 6, tile=tile).labels for tile in (None, (32, 32)))
    assert 0 < (whole != tiled).double().mean() < 0.3


def test_image_that_fits_into_a_tile_is_drawn_as_without() -> None:
    model, images = tiny.model(channel_mult=(1, 1)), tiny.images(2, size=(15, 12))
    whole, tiled = (model.sample(images, 2, 4, tile=tile) for tile in (None, (16, 16)))
    assert torch.equal(whole.labels, tiled.labels)
    assert torch.equal(whole.probabilities, tiled.probabilities)


def test_samples_in_tiles_do_not_depend_on_the_batch() -> None:
    model, images = tiny.model(channel_mult=(1, 1)).double(), tiny.images(2, size=(20, 26)).double()
    together = model.sample(images, 2, 3, tile=(8, 8)).labels
    alone = torch.cat([model.sample(image[None], 2, 3, tile=(8, 8), max_batch_size=1).labels for image in images])
    assert torch.equal(together, alone)


@pytest.mark.parametrize(("size", "tile"), [((20, 27), (64, 64)), ((40, 24), (16, 24))])
def test_features_are_computed_once_a_tile_for_images_of_any_size(
    size: tuple[int, int], tile: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, images, seen = dinos.model(), tiny.images(1, 3, size), []
    forward = type(dinos.encoder()).forward
    monkeypatch.setattr(
        type(dinos.encoder()), "forward", lambda self, tiles: (seen.append(tiles.shape), forward(self, tiles))[1]
    )
    drawn = model.sample(images, 2, 3, tile=tile)
    assert drawn.labels.shape == (1, 2, *size)
    assert drawn.probabilities.isfinite().all()
    assert sum(shape[0] for shape in seen) == len(TileGrid.over(size, tile, 8))
    assert all(shape[2] % 8 == shape[3] % 8 == 0 for shape in seen)


@pytest.mark.parametrize("tile", [(0, 16), (16, -1)])
def test_impossible_tiles_are_refused(tile: tuple[int, int]) -> None:
    with pytest.raises(UserError, match="at least 1"):
        tiny.model().sample(tiny.images(1), tile=tile)


@pytest.mark.slow
@pytest.mark.skipif("CCDM_TILED" not in os.environ, reason="CCDM_TILED names a checkpoint and an image, with a colon")
def test_seams_of_a_trained_model_do_not_show() -> None:
    checkpoint, image = os.environ["CCDM_TILED"].split(":")
    model, preprocessing = load_model(checkpoint)
    assert preprocessing.size is not None
    found = seams.compare(model, read_image(Path(image), preprocessing), preprocessing.size)
    print(found)
    assert found.mean <= 0.02
    assert found.at_seams <= 1.1 * found.elsewhere
