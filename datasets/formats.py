"""Image files of all formats, as intensities of images or as the classes of label maps.

The values of a file become intensities in [0, 1]:

    a window was asked for                              (x - low) / (high - low), clipped; DICOM: of the rescaled values
    8 bits, 1 bit                                       x / 255; 0 or 1
    floats within [0, 1]                                unchanged
    DICOM                                               the file's first window, applied to the rescaled values
    16 and more bits, other floats, DICOM without one   (x - min) / (max - min) of the image

Transparency is dropped, and images are rotated as their EXIF data say.
"""

import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.TiffImagePlugin import TiffImageFile

from datasets import nifti
from datasets.dicom import is_dicom, read_dicom
from datasets.image_files import FORMATS, MAX_PIXELS, open_image
from utils.errors import UserError, corrupt_file_as_user_error

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp", ".gif", ".npy", ".dcm", ".dicom", ".nii")
_LUMINANCE = np.array([0.299, 0.587, 0.114])
_BITS_PER_SAMPLE = 258  # tag of a TIFF

Values = NDArray[Any]
Window = tuple[float, float]
"""The values of a file that become 0 and 1."""


def is_image(path: Path) -> bool:
    """Whether a file has the name or, without one, the beginning of an image file."""
    return path.suffix.lower() in SUFFIXES or nifti.is_nifti(path) or is_dicom(path)


def without_suffix(path: Path) -> Path:
    """The path of an image file without its suffix; dots in the name of a DICOM file need not begin one."""
    if path.name.lower().endswith(".nii.gz"):
        path = path.with_suffix("")
    return path.with_suffix("") if path.suffix.lower() in SUFFIXES else path


def intensities(path: Path, window: Window | None = None) -> Values:
    """The intensities of an image file: floats in [0, 1], H x W x channels. Raises UserError for a file that is
    missing, damaged, not an image, too large, or has colours of 16 bits, which Pillow cuts to 8."""
    values = _read(path, labels=False, windowed=window is None)
    return to_unit_range(values if values.ndim == 3 else values[..., None], path, window)


def to_channels(values: Values, channels: int, path: Path) -> Values:
    """Intensities with that many channels: RGB becomes grey by its luminance (ITU-R 601), grey is repeated. Raises
    UserError for other numbers of channels; `path` is for the message."""
    actual = values.shape[-1]
    if actual == channels:
        return values
    if (actual, channels) == (3, 1):
        return (values @ _LUMINANCE)[..., None]
    if (actual, channels) == (1, 3):
        return values.repeat(3, axis=-1)
    raise UserError(f"{path} has shape {values.shape}; expected H x W x {channels}")


def read_label_map(path: Path) -> NDArray[np.uint8]:
    """The classes in an image file, which are its values as they are, or the indices of its palette: uint8, H x W.

    Raises UserError as `intensities`, for lossy compression, colours, and values that are not integers of 0 .. 255.
    """
    values = _read(path, labels=True, windowed=False)
    if values.ndim == 3 and (values[..., :3] == values[..., :1]).all():  # grey, stored as colours
        values = values[..., 0]
    if values.ndim != 2:
        raise UserError(f"{path} has shape {values.shape}; expected one class per pixel: grey values or a palette")
    if values.dtype != np.uint8 and not ((values >= 0) & (values <= 255) & (values == np.floor(values))).all():
        raise UserError(f"{path} has values from {values.min():g} to {values.max():g}; expected integers of 0 .. 255")
    return values.astype(np.uint8)


def _read(path: Path, labels: bool, windowed: bool) -> Values:
    if not path.is_file():
        raise UserError(f"there is no file {path}")
    if path.stat().st_size == 0:
        raise UserError(f"{path} is empty")
    if path.suffix.lower() == ".npy":
        return _read_array(path)
    if nifti.is_nifti(path):
        return nifti.read_nifti_slice(path)
    if path.suffix.lower() in (".dcm", ".dicom") or is_dicom(path):
        return read_dicom(path, windowed)
    return _read_picture(path, labels)


def _read_picture(path: Path, labels: bool) -> Values:
    picture, bits = open_image(path, lossless=labels), _bits_per_value(path)
    if bits > 8 and len(picture.getbands()) > 1:
        raise UserError(f"{path} has 16 bits per colour, of which 8 would be lost; convert it to NPY")
    if labels:
        picture = picture.getchannel(0) if picture.mode == "LA" else picture
        stretch = {2: 85, 4: 17}.get(bits, 1) if picture.mode == "L" else 1  # Pillow spreads few bits over 0 .. 255
        return np.asarray(picture) // stretch
    if picture.mode in ("LA", "La"):
        picture = picture.convert("L")
    elif picture.mode not in ("1", "L", "F") and not picture.mode.startswith("I"):
        picture = picture.convert("RGB")
    return np.asarray(picture)


def _bits_per_value(path: Path) -> int:
    """The bits of each value in a PNG or TIFF, which Pillow does not always keep; 8 for other formats."""
    with corrupt_file_as_user_error(path), Image.open(path, formats=FORMATS) as picture:
        if isinstance(picture, TiffImageFile):
            return int(max(np.atleast_1d(picture.tag_v2.get(_BITS_PER_SAMPLE, 1))))
        raw = re.search(r";(\d+)", str(picture.tile[0][3])) if picture.format == "PNG" and picture.tile else None
        return int(raw[1]) if raw else 8


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


def to_unit_range(values: Values, path: Path, window: Window | None) -> Values:
    """Values of any number of dimensions as intensities, floats in [0, 1]; `path` is for the message. Raises UserError
    for values that are not finite."""
    if not np.isfinite(values).all():
        raise UserError(f"{path} contains values that are not finite (NaN or infinity)")
    if window is not None:
        low, high = window
        return ((values.astype(np.float64) - low) / (high - low)).clip(0, 1)
    if values.dtype == np.bool_:
        return values.astype(np.float64)
    if values.dtype == np.uint8:
        return values / 255
    is_float, values = values.dtype.kind == "f", values.astype(np.float64)
    low, high = values.min(), values.max()
    if is_float and low >= 0 and high <= 1:
        return values
    return (values - low) / (high - low or 1)
