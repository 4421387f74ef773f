"""A synthetic dataset of ambiguous lesions, whose distribution of label maps is known.

Every image shows CT-like texture, some vessels and one lesion of two touching lobes, whose contrast, softness and
outlines vary. Each of the 4 annotators misses the lesion with a probability that increases as its contrast decreases.
Otherwise they outline one lobe or both, tightly, plainly or generously: softer borders make tight and generous outlines
more likely, and the brighter lobe is chosen more often. So p(label map | image) is a categorical distribution over
seven known maps, different for every image. The file stores the maps and their probabilities, from which an oracle can
sample any number of further label maps.

The data is generated once, from a seed, and stored as an HDF5 in the layout of `datasets.lidc`.
"""

from pathlib import Path
from typing import Annotated, Any

import h5py
import numpy as np
import torch
from pydantic import Field
from scipy.ndimage import gaussian_filter
from torch import Tensor

from datasets.contract import as_label_maps
from datasets.lidc import HDF5Dataset
from utils.config import Seed, validate_arguments
from utils.errors import UserError, corrupt_file_as_user_error
from utils.noise import seed_from
from utils.paths import expand_path, refuse_planted, write_atomically

VERSION = 1
NUM_ANNOTATORS = 4
SPLIT_SIZES = {"train": 2048, "val": 128, "test": 128}
STYLES = ("missed", "first tight", "second tight", "first", "second", "both", "generous")
_TIGHT, _GENEROUS = 0.65, 1.45
# Probabilities of one lobe outlined tightly, one lobe plainly, both plainly, and both generously.
_SHARP_BORDER = np.array([0.10, 0.40, 0.40, 0.10])
_SOFT_BORDER = np.array([0.40, 0.10, 0.10, 0.40])

Array = np.ndarray[Any, Any]


class SyntheticLesions(HDF5Dataset):
    """A split of the synthetic dataset, a `KnownDistribution`."""

    class_names = ("background", "lesion")

    def draw_labels(self, index: int, num_samples: int, seed: int = 0) -> Tensor:
        """Sample label maps of image `index` from their true distribution: uint8, num_samples x H x W."""
        maps, probabilities = self._distribution(index)
        rng = np.random.default_rng(seed_from("oracle", seed, self.split, index))
        return torch.from_numpy(maps[rng.choice(len(maps), size=num_samples, p=probabilities)])

    def label_probabilities(self, index: int) -> Tensor:
        """The true probability of each class at each pixel of image `index`: float64, C x H x W."""
        maps, probabilities = self._distribution(index)
        lesion = torch.from_numpy(np.tensordot(probabilities, maps, axes=1))
        return torch.stack([1 - lesion, lesion])

    def _distribution(self, index: int) -> tuple[Array, Array]:
        """The possible label maps of an image, and their probabilities."""
        where = f"{self.path}: {self.split}/{index}"
        with corrupt_file_as_user_error(where):
            maps, probabilities = self.group["maps"][index], self.group["map_probabilities"][index]
            if probabilities.min() < 0 or abs(probabilities.sum() - 1) > 1e-6 or maps.shape[:1] != probabilities.shape:
                raise UserError(f"{where} is damaged: its probabilities do not sum to one")
            return as_label_maps(maps, self.num_classes, where).numpy(), probabilities


@validate_arguments
def get_dataset(
    split: str,
    path: str = "${TMPDIR}",
    side: Annotated[int, Field(ge=8, le=256)] = 32,
    seed: Seed = 0,
    create: bool = True,
) -> SyntheticLesions:
    """Load a split, after generating the HDF5 if it does not exist yet.

    Args:
        split: "train", "val" or "test".
        path: folder of the HDF5.
        side: height and width of the images in pixels.
        seed: seed of the whole dataset.
        create: whether the HDF5 may be generated.
    """
    file = expand_path(path) / f"ccdm_synthetic_v{VERSION}_side{side}_seed{seed}.hdf5"
    if create and not file.exists():
        write_atomically(file, lambda temporary: write_dataset(temporary, side, seed))
    refuse_planted(file)
    return SyntheticLesions(file, split)


def write_dataset(path: Path, side: int, seed: int) -> None:
    """Write all splits as an HDF5 in the layout of `datasets.lidc`, and the true distribution of the labels."""
    with h5py.File(path, "w") as file:
        file.attrs.update(num_classes=2, version=VERSION, side=side, seed=seed, styles=list(STYLES))
        for split, size in SPLIT_SIZES.items():
            cases = [_make_case(np.random.default_rng(seed_from(seed, split, index)), side) for index in range(size)]
            group = file.create_group(split)
            names = ("images", "labels", "maps", "map_probabilities")
            for name, column in zip(names, zip(*cases, strict=True), strict=True):
                group[name] = np.stack(column)
            group["uids"] = np.arange(size)


def _make_case(rng: np.random.Generator, side: int) -> tuple[Array, Array, Array, Array]:
    """An image (uint8), its annotators' label maps, the possible maps, and their probabilities."""
    visibility, softness, share = rng.uniform(size=3)
    share = 0.3 + 0.4 * share
    first, second = _lobes(rng, side)
    contrast, width = 0.12 + 0.33 * visibility, 0.03 + 0.17 * softness
    brightness = [
        contrast * 2 * part / (1 + np.exp((reach - 1) / width)) for part, reach in ((share, first), (1 - share, second))
    ]
    image = np.clip(_background(rng, side) + np.maximum(*brightness), 0, 1)

    both = np.minimum(first, second)
    outlines = [first < _TIGHT, second < _TIGHT, first < 1, second < 1, both < 1, both < _GENEROUS]
    maps = np.stack([np.zeros((side, side), bool), *outlines]).astype(np.uint8)
    missed = 0.1 + 0.45 * (1 - visibility)
    tight, plain, whole, generous = (1 - softness) * _SHARP_BORDER + softness * _SOFT_BORDER
    styles = np.array([tight * share, tight * (1 - share), plain * share, plain * (1 - share), whole, generous])
    probabilities = np.concatenate([[missed], (1 - missed) * styles / styles.sum()])
    labels = maps[rng.choice(len(maps), size=NUM_ANNOTATORS, p=probabilities)]
    return (image * 255).round().astype(np.uint8), labels, maps, probabilities


def _lobes(rng: np.random.Generator, side: int) -> tuple[Array, Array]:
    """For each lobe, the distance of every pixel from its centre, relative to its wavy outline."""
    direction = rng.uniform(0, 2 * np.pi)
    radii = rng.uniform(0.10, 0.16, size=2) * side
    centre = rng.uniform(-side / 8, side / 8, size=2)
    apart = 0.5 * radii.sum() * np.array([np.sin(direction), np.cos(direction)])
    return _reach(rng, side, centre - apart, radii[0]), _reach(rng, side, centre + apart, radii[1])


def _reach(rng: np.random.Generator, side: int, centre: Array, radius: float) -> Array:
    rows, columns = np.mgrid[:side, :side] - (side - 1) / 2
    rows, columns = rows - centre[0], columns - centre[1]
    angle = np.arctan2(rows, columns)
    waves = sum(rng.uniform(0, 0.25 / k) * np.cos(k * angle + rng.uniform(0, 2 * np.pi)) for k in (2, 3, 4))
    return np.hypot(rows, columns) / (radius * (1 + waves))


def _background(rng: np.random.Generator, side: int) -> Array:
    """Lung-like texture with a few vessels, values around 0.25."""
    fine, coarse = (_unit_noise(rng, side, sigma) for sigma in (0.8, side / 5))
    return 0.25 + 0.025 * fine + 0.04 * coarse + sum(_vessel(rng, side) for _ in range(rng.integers(1, 4)))


def _unit_noise(rng: np.random.Generator, side: int, sigma: float) -> Array:
    noise = gaussian_filter(rng.standard_normal((side, side)), sigma)
    return noise / noise.std()


def _vessel(rng: np.random.Generator, side: int) -> Array:
    """A bright curved line across the image, one or two pixels wide."""
    rows, columns = np.mgrid[:side, :side] - (side - 1) / 2
    direction, bend = rng.uniform(0, 2 * np.pi), rng.uniform(-0.5, 0.5) / side
    along = columns * np.cos(direction) + rows * np.sin(direction)
    across = rows * np.cos(direction) - columns * np.sin(direction) - rng.uniform(-side / 2, side / 2) - bend * along**2
    return rng.uniform(0.1, 0.25) * np.exp(-((across / rng.uniform(0.5, 1.0)) ** 2))
