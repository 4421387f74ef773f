"""Reading image files for the network.

The values of a file become intensities in [0, 1]:

    8 bits, 1 bit                                       x / 255; 0 or 1
    floats within [0, 1]                                unchanged
    DICOM                                               the file's first window, applied to the rescaled values
    16 and more bits, other floats, DICOM without one   (x - min) / (max - min) of the image

RGB becomes grey by its luminance (ITU-R 601) if the network has one channel; grey is repeated if it has three.
Transparency is dropped, and images are rotated as their EXIF data say.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from checkpoints.preprocessing import Preprocessing
from datasets.image_files import MAX_PIXELS, open_image
from prediction.dicom import is_dicom, read_dicom
from utils.errors import UserError, corrupt_file_as_user_error
from utils.paths import expand_path

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".npy", ".dcm", ".dicom")
_LUMINANCE = np.array([0.299, 0.587, 0.114])

Values = NDArray[Any]


def read_image(path: str | Path, preprocessing: Preprocessing) -> Tensor:
    """An image file, scaled as in training: float32, 1 x channels x H x W. Raises UserError for a file that is missing,
    damaged, not an image, too large, or does not fit the network."""
    path = expand_path(path)
    values = _to_channels(intensities(path), preprocessing.image_channels, path)
    pixels = torch.from_numpy(np.ascontiguousarray(values.astype(np.float32))).movedim(-1, 0)
    return preprocessing.normalisation.apply(pixels.contiguous())[None]


def intensities(path: Path) -> Values:
    """The intensities of an image file: floats in [0, 1], H x W x channels. Raises UserError as `read_image`."""
    if not path.is_file():
        raise UserError(f"there is no file {path}")
    if path.stat().st_size == 0:
        raise UserError(f"{path} is empty")
    if path.suffix.lower() == ".npy":
        values = _read_array(path)
    elif path.suffix.lower() in (".dcm", ".dicom") or is_dicom(path):
        values = read_dicom(path, MAX_PIXELS)
    else:
        values = _read_picture(path)
    return _to_unit_range(values if values.ndim == 3 else values[..., None], path)


def _read_picture(path: Path) -> Values:
    picture = open_image(path)
    if picture.mode in ("LA", "La"):
        picture = picture.convert("L")
    elif picture.mode not in ("1", "L", "F") and not picture.mode.startswith("I"):
        picture = picture.convert("RGB")
    return np.asarray(picture)


def _read_array(path: Path) -> Values:
    with corrupt_file_as_user_error(path):
        values: Any = np.load(path, mmap_mode="r", allow_pickle=False)
    if not isinstance(values, np.ndarray) or values.dtype.kind not in "buif":
        raise UserError(f"{path} contains {getattr(values, 'dtype', 'several arrays')}; expected one array of numbers")
    if values.ndim not in (2, 3) or 0 in values.shape:
        raise UserError(f"{path} has shape {values.shape}; expected H x W or H x W x channels")
    if values.shape[0] * values.shape[1] > MAX_PIXELS:
        raise UserError(f"{path} has more than {MAX_PIXELS:,} pixels, the limit; crop or downscale it")
    return np.array(values)


def _to_unit_range(values: Values, path: Path) -> Values:
    if values.dtype == np.bool_:
        return values.astype(np.float64)
    if values.dtype == np.uint8:
        return values / 255
    if not np.isfinite(values).all():
        raise UserError(f"{path} contains values that are not finite (NaN or infinity)")
    is_float, values = values.dtype.kind == "f", values.astype(np.float64)
    low, high = values.min(), values.max()
    if is_float and low >= 0 and high <= 1:
        return values
    return (values - low) / (high - low or 1)


def _to_channels(values: Values, channels: int, path: Path) -> Values:
    actual = values.shape[-1]
    if actual == channels:
        return values
    if (actual, channels) == (3, 1):
        return (values @ _LUMINANCE)[..., None]
    if (actual, channels) == (1, 3):
        return values.repeat(3, axis=-1)
    raise UserError(f"{path} has shape {values.shape}; the network expects H x W x {channels}")
