"""Pictures of image files as arrays."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from utils.errors import UserError


def read_colour(path: Path) -> Image.Image:
    """A picture in red, green and blue.

    Raises:
        UserError: for a file that is missing or damaged.
    """
    return _open(path).convert("RGB")


def read_grey(path: Path) -> NDArray[np.uint8]:
    """A picture of one channel: uint8, H x W.

    Raises:
        UserError: for a file that is missing, damaged, or has not 8 bits and one channel.
    """
    values: NDArray[Any] = np.asarray(_open(path))
    if values.ndim != 2 or values.dtype not in (np.uint8, np.bool_):
        raise UserError(f"{path} is {values.dtype} {values.shape}; expected 8 bits and one channel")
    return values.astype(np.uint8)


def _open(path: Path) -> Image.Image:
    try:
        with Image.open(path) as picture:
            picture.load()
            return picture
    except (OSError, SyntaxError) as error:
        raise UserError(f"{path} cannot be read as a picture: {error}") from error
