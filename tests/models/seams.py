"""How far samples that were drawn in tiles are from those of the whole image, at the seams and elsewhere."""

from typing import NamedTuple

import torch
from torch import Tensor

from models import CCDM
from models.tiling import TileGrid


class Comparison(NamedTuple):
    """Mean absolute differences of the mean probabilities: everywhere, where tiles blend, and where one is alone."""

    mean: float
    at_seams: float
    elsewhere: float


def compare(model: CCDM, images: Tensor, tile: tuple[int, int], num_samples: int = 16, steps: int = 25) -> Comparison:
    """Draw label maps of images (B x channels x H x W) with and without tiles, from the same noise."""
    whole, tiled = (
        model.sample(images, num_samples, steps, tile=choice).probabilities.double() for choice in (None, tile)
    )
    difference = (whole - tiled).abs().mean((0, 1))
    seams = blended(TileGrid.over((images.shape[-2], images.shape[-1]), tile, model.side_multiple))
    return Comparison(*(float(part.mean()) for part in (difference, difference[seams], difference[~seams])))


def blended(grid: TileGrid) -> Tensor:
    """Where more than one tile counts: bool, H x W."""
    counted = torch.zeros(grid.rows.padded, grid.columns.padded)
    for (rows, columns), weights in zip(grid.slices(), grid.weights(), strict=True):
        counted[rows, columns] += weights > 0
    return grid.uncut(counted) > 1
