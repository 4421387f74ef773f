"""Pictures of image files as arrays."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from utils.errors import UserError

MAX_PIXELS = Image.MAX_IMAGE_PIXELS or 2**27
"""Larger pictures are taken for decompression bombs."""


def read_colour(path: Path) -> Image.Image:
    """A picture in red, green and blue.

    Raises:
        UserError: for a file that is missing or damaged.
    """
    return open_picture(path).convert("RGB")


def read_grey(path: Path) -> NDArray[np.uint8]:
    """A picture of one channel: uint8, H x W.

    Raises:
        UserError: for a file that is missing, damaged, or has not 8 bits and one channel.
    """
    values: NDArray[Any] = np.asarray(open_picture(path))
    if values.ndim != 2 or values.dtype not in (np.uint8, np.bool_):
        raise UserError(f"{path} is {values.dtype} {values.shape}; expected 8 bits and one channel")
    return values.astype(np.uint8)


def open_picture(path: Path) -> Image.Image:
    """A picture as its file has it, turned upright where the file says how.

    Raises:
        UserError: for a file that is missing, damaged, no picture, too large, or of several pages.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as picture:
                return _only_page(picture, path)
    except UserError:
        raise
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise UserError(f"{path} has more pixels than the {MAX_PIXELS:,} that are read; cut or scale it") from error
    except Exception as error:  # what a damaged file raises inside a decoder can be anything
        raise UserError(f"{path} cannot be read as a picture: {error}") from error


def _only_page(picture: Image.Image, path: Path) -> Image.Image:
    pages = getattr(picture, "n_frames", 1)
    if pages > 1 and picture.format != "MPO":  # what cameras write: a picture and its preview
        raise UserError(f"{path} has {pages} pages; expected one picture in a file")
    picture.load()
    return ImageOps.exif_transpose(picture)
