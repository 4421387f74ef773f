"""DICOM images, read by pydicom where it is installed."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from utils.errors import UserError, corrupt_file_as_user_error

_MARK_AT, _MARK = 128, b"DICM"


def is_dicom(path: Path) -> bool:
    """Whether a file begins as DICOM files do, whatever its name."""
    with path.open("rb") as file:
        return file.read(_MARK_AT + len(_MARK))[_MARK_AT:] == _MARK


def read_dicom(path: Path, max_pixels: int) -> NDArray[Any]:
    """The image of a DICOM file: H x W or H x W x 3.

    Grey values are rescaled by the file's slope and intercept and, where the file has a window, cut and scaled by it to
    [0, 1] (DICOM PS3.3, C.11.2.1.2.1). MONOCHROME1, where small values are bright, is inverted.

    Raises:
        UserError: without pydicom; for a damaged file, one without an image or with several, and one too large.
    """
    try:
        import pydicom
    except ImportError as error:
        raise UserError(f"{path} is a DICOM file; reading it needs pydicom: pip install pydicom") from error
    with corrupt_file_as_user_error(path):
        file = pydicom.dcmread(path)
        if "Rows" not in file or "PixelData" not in file:
            raise UserError(f"{path} holds no image")
        if int(file.get("NumberOfFrames") or 1) > 1:
            raise UserError(f"{path} holds {file.NumberOfFrames} images; expected one in a file")
        if file.Rows * file.Columns > max_pixels:
            raise UserError(f"{path} has more pixels than the {max_pixels:,} that are read; cut or scale it")
        values: NDArray[Any] = file.pixel_array
        if values.ndim == 3:
            return values
        return _windowed(values, file)


def _windowed(values: NDArray[Any], file: Any) -> NDArray[Any]:
    values = values * float(file.get("RescaleSlope", 1)) + float(file.get("RescaleIntercept", 0))
    centre, width = (_first(file.get(name)) for name in ("WindowCenter", "WindowWidth"))
    if centre is not None and width is not None and width >= 1:
        values = ((values - (centre - 0.5)) / max(width - 1, 1e-9) + 0.5).clip(0, 1)
    else:
        low, high = values.min(), values.max()
        values = (values - low) / (high - low or 1)
    return 1 - values if file.get("PhotometricInterpretation") == "MONOCHROME1" else np.asarray(values)


def _first(value: Any) -> float | None:
    """Of a value that may be missing, empty, one number or several."""
    if value is None or value == "":
        return None
    values = list(value) if hasattr(value, "__iter__") and not isinstance(value, str) else [value]
    return float(values[0]) if values else None
