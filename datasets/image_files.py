"""Reading image files."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from utils.errors import UserError, corrupt_file_as_user_error

FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "WEBP", "GIF")  # others start programs, or are never images of data
_LOSSY = ("JPEG", "MPO", "WEBP")
MAX_PIXELS = Image.MAX_IMAGE_PIXELS or 2**27  # larger images are refused, since a small file can decompress to any size


def read_grey(path: Path) -> NDArray[np.uint8]:
    """Read an image of one channel: uint8, H x W. Raises UserError as `open_image`, and for an image that does not have
    8 bits and one channel."""
    values: NDArray[Any] = np.asarray(open_image(path))
    if values.ndim != 2 or values.dtype not in (np.uint8, np.bool_):
        raise UserError(f"{path} is {values.dtype} {values.shape}; expected 8 bits and one channel")
    return values.astype(np.uint8)


def open_image(path: Path, lossless: bool = False) -> Image.Image:
    """Read an image in the file's own mode, rotated as its EXIF orientation says. Raises UserError for a file that is
    missing, damaged, not an image, too large, or has several pages; if `lossless`, also for lossy compression."""
    with corrupt_file_as_user_error(path), warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            with Image.open(path, formats=FORMATS) as image:
                pages = getattr(image, "n_frames", 1)
                if pages > 1 and image.format != "MPO":  # a camera's image with its preview
                    raise UserError(f"{path} has {pages} pages; expected one image per file")
                lossy = image.format in _LOSSY or image.info.get("compression") == "jpeg"
                if lossless and lossy:
                    raise UserError(f"{path} is compressed as {image.format}, which may change values; expected PNG")
                image.load()
                return ImageOps.exif_transpose(image)
        except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
            raise UserError(f"{path} has more than {MAX_PIXELS:,} pixels, the limit; crop or downscale it") from error
