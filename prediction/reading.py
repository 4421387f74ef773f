"""Reading image files for the network: intensities (`datasets.reading`) in its channels, scaled as in training.

RGB becomes grey by its luminance (ITU-R 601) if the network has one channel; grey is repeated if it has three.
"""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from checkpoints.preprocessing import Preprocessing
from datasets.reading import Values, Window, intensities
from utils.errors import UserError
from utils.paths import expand_path

_LUMINANCE = np.array([0.299, 0.587, 0.114])


def read_image(path: str | Path, preprocessing: Preprocessing, window: Window | None = None) -> Tensor:
    """An image file, scaled as in training: float32, 1 x channels x H x W.

    Variables are expanded in a text, but not in a `Path`. Raises UserError for a file that is missing, damaged, not an
    image, too large, or does not fit the network.
    """
    path = path if isinstance(path, Path) else expand_path(path)
    values = _to_channels(intensities(path, window), preprocessing.image_channels, path)
    pixels = torch.from_numpy(np.ascontiguousarray(values.astype(np.float32))).movedim(-1, 0)
    return preprocessing.normalisation.apply(pixels.contiguous())[None]


def _to_channels(values: Values, channels: int, path: Path) -> Values:
    actual = values.shape[-1]
    if actual == channels:
        return values
    if (actual, channels) == (3, 1):
        return (values @ _LUMINANCE)[..., None]
    if (actual, channels) == (1, 3):
        return values.repeat(3, axis=-1)
    raise UserError(f"{path} has shape {values.shape}; the network expects H x W x {channels}")
