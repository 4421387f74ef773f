"""Reading image files for the network; DICOM by pydicom if it is installed.

The values of a file become intensities in [0, 1]:

    a window was asked for                              (x - low) / (high - low), clipped; DICOM: of the rescaled values
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
from PIL import Image
from PIL.TiffImagePlugin import TiffImageFile
from torch import Tensor

from checkpoints.preprocessing import Preprocessing
from datasets.image_files import MAX_PIXELS, open_image
from utils.errors import UserError, corrupt_file_as_user_error
from utils.paths import expand_path

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp", ".gif", ".npy", ".dcm", ".dicom")
_MAGIC_OFFSET, _MAGIC = 128, b"DICM"
_LUMINANCE = np.array([0.299, 0.587, 0.114])

Values = NDArray[Any]
Window = tuple[float, float]
"""The values of a file that become 0 and 1."""


def read_image(path: str | Path, preprocessing: Preprocessing, window: Window | None = None) -> Tensor:
    """An image file, scaled as in training: float32, 1 x channels x H x W.

    Variables are expanded in a text, but not in a `Path`. Raises UserError for a file that is missing, damaged, not an
    image, too large, or does not fit the network.
    """
    path = path if isinstance(path, Path) else expand_path(path)
    values = _to_channels(intensities(path, window), preprocessing.image_channels, path)
    pixels = torch.from_numpy(np.ascontiguousarray(values.astype(np.float32))).movedim(-1, 0)
    return preprocessing.normalisation.apply(pixels.contiguous())[None]


def intensities(path: Path, window: Window | None = None) -> Values:
    """The intensities of an image file: floats in [0, 1], H x W x channels. Raises UserError as `read_image`."""
    if not path.is_file():
        raise UserError(f"there is no file {path}")
    if path.stat().st_size == 0:
        raise UserError(f"{path} is empty")
    if path.suffix.lower() == ".npy":
        values = _read_array(path)
    elif path.suffix.lower() in (".dcm", ".dicom") or is_dicom(path):
        values = read_dicom(path, window)
    else:
        values = _read_picture(path)
    return _to_unit_range(values if values.ndim == 3 else values[..., None], path, window)


def _read_picture(path: Path) -> Values:
    picture = open_image(path)
    _check_bits_per_colour(path)
    if picture.mode in ("LA", "La"):
        picture = picture.convert("L")
    elif picture.mode not in ("1", "L", "F") and not picture.mode.startswith("I"):
        picture = picture.convert("RGB")
    return np.asarray(picture)


def _check_bits_per_colour(path: Path) -> None:
    """Raises UserError for a PNG or TIFF of 16 bits per colour, which Pillow would silently cut to 8."""
    with Image.open(path) as picture:
        if isinstance(picture, TiffImageFile):
            bits = np.atleast_1d(picture.tag_v2.get(258, 1))
            cut = len(bits) > 1 and max(bits) > 8
        else:
            cut = any(str(tile[3]).startswith(("RGB;16", "RGBA;16", "LA;16")) for tile in picture.tile)
    if cut:
        raise UserError(f"{path} has 16 bits per colour, of which 8 would be lost; convert it to NPY")


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


def _to_unit_range(values: Values, path: Path, window: Window | None) -> Values:
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


def _to_channels(values: Values, channels: int, path: Path) -> Values:
    actual = values.shape[-1]
    if actual == channels:
        return values
    if (actual, channels) == (3, 1):
        return (values @ _LUMINANCE)[..., None]
    if (actual, channels) == (1, 3):
        return values.repeat(3, axis=-1)
    raise UserError(f"{path} has shape {values.shape}; the network expects H x W x {channels}")


def is_dicom(path: Path) -> bool:
    """Whether a file starts like a DICOM file, whatever its name."""
    with path.open("rb") as file:
        return file.read(_MAGIC_OFFSET + len(_MAGIC))[_MAGIC_OFFSET:] == _MAGIC


def read_dicom(path: Path, window: Window | None = None) -> Values:
    """The image of a DICOM file: H x W or H x W x 3.

    Grey values are rescaled by the file's slope and intercept, which is all if there is a `window`. Otherwise, if the
    file has one, it maps them to [0, 1] (DICOM PS3.3, C.11.2.1.2.1), and if not, their minimum and maximum do;
    MONOCHROME1, where small values are bright, is inverted. Colours are those of the file's palette, if it has one.
    Raises UserError if pydicom or its plugin for the compression is not installed; for a damaged file, and one with no
    image, several, or one of more than `MAX_PIXELS`.
    """
    try:
        import pydicom
    except ImportError as error:
        raise UserError(f"{path} is a DICOM file; reading it requires pydicom: pip install pydicom") from error
    with corrupt_file_as_user_error(path):
        file = pydicom.dcmread(path)
        if "Rows" not in file or "PixelData" not in file:
            raise UserError(f"{path} contains no image")
        if int(file.get("NumberOfFrames") or 1) > 1:
            raise UserError(f"{path} contains {file.NumberOfFrames} images; expected one")
        if file.Rows * file.Columns > MAX_PIXELS:
            raise UserError(f"{path} has more than {MAX_PIXELS:,} pixels, the limit; crop or downscale it")
        values = _pixels(file, path)
        if file.get("PhotometricInterpretation") == "PALETTE COLOR":
            bits = int(file.RedPaletteColorLookupTableDescriptor[2])
            return np.asarray(pydicom.pixels.processing.apply_color_lut(values, file)) / (2**bits - 1)
        if values.ndim == 3:
            return values
        values = values * float(file.get("RescaleSlope", 1)) + float(file.get("RescaleIntercept", 0))
        return values if window is not None else _apply_window(values, file)


def _pixels(file: Any, path: Path) -> Values:
    try:
        return np.asarray(file.pixel_array)
    except RuntimeError as error:  # also the base of NotImplementedError
        compression = f"{path} is compressed ({file.file_meta.TransferSyntaxUID.name})"
        if "missing dependencies" in str(error):
            plugins = "pylibjpeg pylibjpeg-libjpeg pylibjpeg-openjpeg"
            raise UserError(f"{compression}; reading it requires a plugin of pydicom: pip install {plugins}") from error
        if isinstance(error, NotImplementedError):
            raise UserError(f"{compression} in a way that pydicom does not support") from error
        raise


def _apply_window(values: Values, file: Any) -> Values:
    centre, width = (_first(file.get(name)) for name in ("WindowCenter", "WindowWidth"))
    if centre is not None and width is not None and width >= 1:
        values = ((values - (centre - 0.5)) / max(width - 1, 1e-9) + 0.5).clip(0, 1)
    else:
        low, high = values.min(), values.max()
        values = (values - low) / (high - low or 1)
    return 1 - values if file.get("PhotometricInterpretation") == "MONOCHROME1" else np.asarray(values)


def _first(value: Any) -> float | None:
    """The first number of an element that may be missing, empty, a number or a list of numbers."""
    if value is None or value == "":
        return None
    values = list(value) if hasattr(value, "__iter__") and not isinstance(value, str) else [value]
    return float(values[0]) if values else None
