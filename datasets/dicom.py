"""Reading DICOM files by pydicom, if it is installed."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datasets.image_files import MAX_PIXELS
from utils.errors import UserError, corrupt_file_as_user_error
from utils.modules import optional_package

_MAGIC_OFFSET, _MAGIC = 128, b"DICM"

Values = NDArray[Any]


def is_dicom(path: Path) -> bool:
    """Whether a file starts like a DICOM file, whatever its name."""
    with path.open("rb") as file:
        return file.read(_MAGIC_OFFSET + len(_MAGIC))[_MAGIC_OFFSET:] == _MAGIC


def series_of(path: Path) -> str:
    """The SeriesInstanceUID of a DICOM file, or its path if it has none. Raises UserError as `read_dicom`."""
    pydicom = optional_package("pydicom", f"{path} is a DICOM file; reading it")
    with corrupt_file_as_user_error(path):
        return str(pydicom.dcmread(path, stop_before_pixels=True).get("SeriesInstanceUID") or path.resolve())


def read_dicom(path: Path, windowed: bool = True) -> Values:
    """The image of a DICOM file: H x W or H x W x 3.

    Grey values are rescaled by the file's slope and intercept, which is all unless `windowed`. Then, if the file has a
    window, it maps them to [0, 1] (DICOM PS3.3, C.11.2.1.2.1), and if not, their minimum and maximum do; MONOCHROME1,
    where small values are bright, is inverted. Colours are those of the file's palette, if it has one.
    Raises UserError if pydicom or its plugin for the compression is not installed; for a damaged file, and one with no
    image, several, or one of more than `MAX_PIXELS`.
    """
    pydicom = optional_package("pydicom", f"{path} is a DICOM file; reading it")
    with corrupt_file_as_user_error(path):
        file = pydicom.dcmread(path)
        if "Rows" not in file or "PixelData" not in file:
            raise UserError(f"{path} contains no image")
        if int(file.get("NumberOfFrames") or 1) > 1:
            raise UserError(
                f"{path} contains {file.NumberOfFrames} images; expected one; ddpm_predict.py --volumes reads them"
            )
        if file.Rows * file.Columns > MAX_PIXELS:
            raise UserError(f"{path} has more than {MAX_PIXELS:,} pixels, the limit; crop or downscale it")
        values = _pixels(file, path)
        if file.get("PhotometricInterpretation") == "PALETTE COLOR":
            bits = int(file.RedPaletteColorLookupTableDescriptor[2])
            return np.asarray(pydicom.pixels.processing.apply_color_lut(values, file)) / (2**bits - 1)
        if values.ndim == 3:
            return values
        values = values * float(file.get("RescaleSlope", 1)) + float(file.get("RescaleIntercept", 0))
        return _apply_window(values, file) if windowed else values


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
