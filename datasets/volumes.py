"""Volumes: NIfTI files by nibabel, and multi-frame files and series of DICOM by highdicom, if they are installed."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from datasets.formats import Window, to_unit_range
from datasets.nifti import Array, is_nifti, open_nifti, reorient
from utils.errors import UserError, corrupt_file_as_user_error
from utils.modules import optional_package

_RESCALED: Any = {"dtype": np.float32, "apply_real_world_transform": False, "apply_presentation_lut": False}


class Volume(NamedTuple):
    """A volume as slices of one plane.

    `path` is the file, or the first one. `geometry` is the nibabel image that results are written like; `dicom` are the
    datasets of DICOM and their volume.
    """

    path: Path
    slices: NDArray[np.floating[Any]]  # intensities in [0, 1], D x H x W
    geometry: Any
    plane: str
    dicom: tuple[Sequence[Any], Any] | None = None

    def restore(self, slices: Array) -> Array:
        """Results for the slices, D x H x W, with the axes of the file."""
        return reorient(slices, self.geometry.affine, self.plane, back=True)


def read_volume(files: Sequence[Path], plane: str = "axial", window: Window | None = None) -> Volume:
    """Read a NIfTI file, a multi-frame DICOM file, or the files of a DICOM series, in any order.

    Intensities are those of `datasets.formats`, with the minimum and maximum of the whole volume. They are of the
    rescaled values (such as Hounsfield units); windows of DICOM are not used, since they can differ between slices.
    MONOCHROME1, where small values are bright, is inverted unless there is a window.
    Raises UserError if the package is missing, for damaged files, and for what is not one volume of numbers.
    """
    path = files[0]
    if is_nifti(path):
        image, dicom = open_nifti(path), None
    else:
        dicom = _read_dicom(files)
        image = _to_nibabel(dicom[1])
    if image.ndim != 3:
        shape = " x ".join(map(str, image.shape))
        raise UserError(f"{path} has shape {shape}; expected a volume of three dimensions")
    with corrupt_file_as_user_error(path):
        values = np.asarray(image.dataobj)
    intensities = to_unit_range(values, path, window).astype(np.float32)
    if dicom is not None and window is None and dicom[0][0].PhotometricInterpretation == "MONOCHROME1":
        intensities = 1 - intensities
    return Volume(path, reorient(intensities, image.affine, plane), image, plane, dicom)


def _read_dicom(files: Sequence[Path]) -> tuple[Sequence[Any], Any]:
    """The datasets, and highdicom's volume of their values, rescaled by slope and intercept alone."""
    highdicom = optional_package("highdicom", f"{files[0]}: reading volumes of DICOM")
    with corrupt_file_as_user_error(files[0]):
        datasets = [highdicom.imread(file) for file in files]
    try:
        if len(files) == 1:
            return datasets, datasets[0].get_volume(**_RESCALED)
        return datasets, highdicom.get_volume_from_series(datasets, **_RESCALED)
    except (RuntimeError, ValueError, AttributeError) as error:
        raise UserError(f"{files[0]}, {len(files)} files, is not one volume: {error}") from error


def _to_nibabel(volume: Any) -> Any:
    nibabel = optional_package("nibabel", "writing the results of volumes")
    lps_to_ras = np.diag([-1, -1, 1, 1])
    return nibabel.Nifti1Image(volume.array, lps_to_ras @ volume.affine)
