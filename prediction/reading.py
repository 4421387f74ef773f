"""Reading image files for the network."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from checkpoints.preprocessing import Preprocessing
from datasets.formats import Values, Window, intensities, to_channels
from utils.paths import expand_path


def read_image(path: str | Path, preprocessing: Preprocessing, window: Window | None = None) -> Tensor:
    """An image file, scaled as in training: float32, 1 x channels x H x W.

    Variables are expanded in a text, but not in a `Path`. Raises UserError for a file that is missing, damaged, not an
    image, too large, or does not fit the network.
    """
    path = path if isinstance(path, Path) else expand_path(path)
    return to_input(intensities(path, window), preprocessing, path)


def to_input(values: Values, preprocessing: Preprocessing, path: Path) -> Tensor:
    """Intensities in [0, 1] of a file (H x W x channels), scaled as in training: float32, 1 x channels x H x W. Raises
    UserError for a number of channels that does not fit the network."""
    values = to_channels(values, preprocessing.image_channels, path)
    pixels = torch.from_numpy(np.ascontiguousarray(values.astype(np.float32))).movedim(-1, 0)
    return preprocessing.normalisation.apply(pixels.contiguous())[None]
