"""Images larger than the training images: the network processes overlapping tiles, and no seams are visible.

The reverse process runs on the whole image. Noise, x_t, posterior and draw are independent of the tiles; only the
network sees one tile at a time, and at every step the class probabilities of the tiles are blended into those of the
whole image. Sampling tile by tile and blending the samples would not work: averaging two samples does not give a
sample.

The blending weights are a partition of unity, the product of one for rows and one for columns. Between neighbouring
tiles they follow a cosine over half of the smallest overlap, centred in it. A pixel closer to the border of a tile than
a quarter of the smallest overlap therefore takes nothing from that tile, and a network whose receptive field is smaller
than that gives the same result as without tiles.
"""

import dataclasses
import math
from collections.abc import Callable

import torch
from torch import Tensor

from diffusion.process import at_least_float32
from diffusion.samplers import Denoiser
from models.chunking import run_in_chunks
from models.progress import Progress
from utils.errors import UserError

Network = Callable[[Tensor, Tensor, Tensor, Tensor | None], Tensor]
"""Maps x_t (B x H x W), t (B), images and features to logits (B x C x H x W)."""

Encoding = Callable[[Tensor], Tensor]
"""Maps images (B x channels x H x W) to features (B x channels x H / stride x W / stride)."""

OVERLAP = 0.375
"""Smallest overlap of two neighbours as a fraction of the tile size. On a large synthetic image with tiles of the
training size, the squared error of the mean probabilities was 0.0048 with 0.25, 0.0041 with 0.375 and 0.0042 with 0.5,
which needs a third more tiles; without tiles it was 0.0084."""


@dataclasses.dataclass(frozen=True)
class Axis:
    """Tiles along one side of an image.

    Attributes:
        length: pixels of the image.
        padded: pixels after the last one has been repeated up to a multiple of the network's stride.
        side: pixels of a tile.
        starts: the first pixel of every tile.
        blend: pixels over which the weights change from one tile to the next.
    """

    length: int
    padded: int
    side: int
    starts: tuple[int, ...]
    blend: float

    @staticmethod
    def cover(length: int, side: int, multiple: int) -> "Axis":
        """As few tiles of about `side` pixels as cover `length`, evenly spaced; all starts are multiples of `multiple`.

        An image that fits into a tile gives one tile.
        """
        units, tile = math.ceil(length / multiple), max(2, math.ceil(side / multiple))
        if units <= tile:
            return Axis(length, units * multiple, units * multiple, (0,), 0)
        overlap = max(1, math.floor(tile * OVERLAP))
        gaps = math.ceil((units - tile) / (tile - overlap))
        starts = (round(k * (units - tile) / gaps) * multiple for k in range(gaps + 1))
        return Axis(length, units * multiple, tile * multiple, tuple(starts), overlap * multiple / 2)

    def weights(self) -> Tensor:
        """The weight of each pixel of each tile: float64, tiles x side. At every pixel they sum to one."""
        starts = torch.tensor(self.starts, dtype=torch.float64)[:, None]
        seams = (starts[1:] + starts[:-1] + self.side) / 2
        pixels = starts + torch.arange(self.side) + 0.5
        weights = torch.ones(len(self.starts), self.side, dtype=torch.float64)
        weights[1:] *= self._rising(pixels[1:] - seams)
        weights[:-1] *= 1 - self._rising(pixels[:-1] - seams)
        return weights

    def _rising(self, beyond: Tensor) -> Tensor:
        """The weight of the later tile, that many pixels beyond the seam."""
        return (1 - torch.cos(math.pi * (beyond / self.blend + 0.5).clamp(0, 1))) / 2


@dataclasses.dataclass(frozen=True)
class TileGrid:
    """Tiles over a whole image, row by row."""

    rows: Axis
    columns: Axis

    @staticmethod
    def cover(size: tuple[int, int], tile: tuple[int, int], multiple: int) -> "TileGrid":
        """Tiles of height and width `tile`, rounded up to multiples of `multiple`, over an image of that size.

        Raises:
            UserError: for a side below 1.
        """
        if min(tile) < 1:
            raise UserError(f"tiles of {tile[0]} x {tile[1]} pixels; both sides must be at least 1")
        return TileGrid(*(Axis.cover(length, side, multiple) for length, side in zip(size, tile, strict=True)))

    def __len__(self) -> int:
        return len(self.rows.starts) * len(self.columns.starts)

    @property
    def tile(self) -> tuple[int, int]:
        """Height and width of a tile in pixels."""
        return self.rows.side, self.columns.side

    @property
    def is_image(self) -> bool:
        """Whether the only tile is the image as it is."""
        return len(self) == 1 and self.tile == (self.rows.length, self.columns.length)

    def slices(self) -> list[tuple[slice, slice]]:
        """Where every tile lies in the padded image."""
        height, width = self.tile
        return [
            (slice(top, top + height), slice(left, left + width))
            for top in self.rows.starts
            for left in self.columns.starts
        ]

    def cut(self, maps: Tensor) -> Tensor:
        """Cut maps into tiles: B x ... x H x W -> B x tiles x ... x height x width. Borders are repeated."""
        for dim, axis in ((-2, self.rows), (-1, self.columns)):
            if axis.padded > axis.length:
                pixels = torch.arange(axis.padded, device=maps.device).clamp(max=axis.length - 1)
                maps = maps.index_select(dim, pixels)
        return torch.stack([maps[..., rows, columns] for rows, columns in self.slices()], dim=1)

    def weights(self) -> Tensor:
        """The weight of each pixel of each tile in the blend: float64, tiles x height x width."""
        return torch.einsum("rh,cw->rchw", self.rows.weights(), self.columns.weights()).flatten(0, 1)

    def empty(self, number: int, num_classes: int, like: Tensor) -> Tensor:
        """Zeros for the padded image: number x classes x H' x W'."""
        return like.new_zeros((number, num_classes, self.rows.padded, self.columns.padded))

    def uncut(self, maps: Tensor) -> Tensor:
        """Crop maps of the padded image to the image: ... x H x W."""
        return maps[..., : self.rows.length, : self.columns.length]


class TiledNetwork:
    """Applies a network to whole images, tile by tile.

    Features are computed once for every tile. At most `chunk_size` tiles go through network and encoder together, so
    that the memory for activations depends on the tile size; label maps, one sum of probabilities, and features scale
    with the image.

    Args:
        network: processes tiles.
        features: computes the second condition from the images of tiles, if the network has one.
        images: B x channels x H x W.
        grid: over such images.
        chunk_size: tiles per call of the network.
        progress: moves with every call.
        fill: whether all calls have the same number of tiles.
    """

    def __init__(
        self, network: Network, features: Encoding | None, images: Tensor, grid: TileGrid, chunk_size: int,
        progress: Progress, fill: bool = False,
    ) -> None:  # fmt: skip
        self._network, self._grid, self._chunk_size, self._fill = network, grid, chunk_size, fill
        self._progress = progress
        self._images = grid.cut(images).flatten(0, 1)
        self._weights = grid.weights().to(images.device, at_least_float32(images).dtype)
        self._features: Tensor | None = None
        if features is not None:
            chunks = run_in_chunks(
                lambda tiles: features(self._images[tiles]), self._every(len(self._images)), chunk_size
            )
            self._features = torch.cat(list(chunks))

    def denoiser(self, image_index: Tensor) -> Denoiser:
        """The denoiser for images with these indices (M); its logits are the blended log-probabilities."""
        first_tile = image_index * len(self._grid)

        def denoise(x_t: Tensor, t: Tensor) -> Tensor:
            blend = _Blend(self._grid, self._weights, len(x_t))
            tiles = self._grid.cut(x_t).flatten(0, 1)

            def compute(items: Tensor) -> Tensor:
                maps, places = items // len(self._grid), items % len(self._grid)
                tile = first_tile[maps] + places
                features = None if self._features is None else self._features[tile]
                return self._network(tiles[items], t[maps], self._images[tile], features)

            for logits in run_in_chunks(compute, self._every(len(tiles)), self._chunk_size, self._fill):
                blend.add(logits)
                self._progress.advance(len(logits) / len(self._grid))
            return blend.logits()

        return denoise

    def _every(self, number: int) -> Tensor:
        return torch.arange(number, device=self._images.device)


class _Blend:
    """Weighted sum of the tiles' probabilities, which arrive map by map and, within a map, in the order of the grid."""

    def __init__(self, grid: TileGrid, weights: Tensor, num_maps: int) -> None:
        self._grid, self._weights, self._num_maps, self._added = grid, weights, num_maps, 0
        self._places = grid.slices()
        self._total: Tensor | None = None

    def add(self, logits: Tensor) -> None:
        """Add the next tiles: logits, tiles x C x height x width."""
        probabilities = at_least_float32(logits).softmax(1)
        if self._total is None:
            self._total = self._grid.empty(self._num_maps, probabilities.shape[1], probabilities)
        for tile in probabilities:
            map_, place = divmod(self._added, len(self._grid))
            rows, columns = self._places[place]
            self._total[map_, :, rows, columns] += tile * self._weights[place]
            self._added += 1

    def logits(self) -> Tensor:
        """Logarithms of the blended probabilities: maps x C x H x W."""
        assert self._total is not None, "no tiles"
        return self._grid.uncut(self._total).log()
