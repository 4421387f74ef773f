"""Reading image files for the network."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from checkpoints.preprocessing import Preprocessing
from datasets.formats import Window, intensities, to_channels
from utils.paths import expand_path


def read_image(path: str | Path, preprocessing: Preprocessing, window: Window | None = None) -> Tensor:
    """An image file, scaled as in training: float32, 1 x channels x H x W.

    Variables are expanded in a text, but not in a `Path`. Raises UserError for a file that is missing, damaged, not an
    image, too large, or does not fit the network.
    """
    path = path if isinstance(path, Path) else expand_path(path)
    values = to_channels(intensities(path, window), preprocessing.image_channels, path)
    pixels = torch.from_numpy(np.ascontiguousarray(values.astype(np.float32))).movedim(-1, 0)
    return preprocessing.normalisation.apply(pixels.contiguous())[None]
