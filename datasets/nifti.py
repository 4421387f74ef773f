"""NIfTI files, read by nibabel if it is installed."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from utils.errors import UserError, corrupt_file_as_user_error
from utils.modules import optional_package

SUFFIXES = (".nii", ".nii.gz")
MAX_VOXELS = 2**30


def is_nifti(path: Path) -> bool:
    """Whether a file has the name of a NIfTI file."""
    return path.name.lower().endswith(SUFFIXES)


def open_nifti(path: Path) -> Any:
    """The nibabel image of a file, whose values have not been read yet; trailing dimensions of one element are dropped.

    Raises UserError if nibabel is not installed, and for a file that is missing, damaged, too large, or does not hold
    one number per voxel.
    """
    nibabel = optional_package("nibabel", f"{path} is a NIfTI file; reading it")
    if not path.is_file():
        raise UserError(f"there is no file {path}")
    with corrupt_file_as_user_error(path):
        image: Any = nibabel.load(path)
        if image.get_data_dtype().kind not in "buif":
            raise UserError(f"{path} has values of type {image.get_data_dtype()}; expected one number per voxel")
        if not 0 < np.prod([float(side) for side in image.shape]) <= MAX_VOXELS:
            sides = " x ".join(map(str, image.shape))
            raise UserError(f"{path} has {sides} voxels; expected 1 to {MAX_VOXELS:,}")
        if not np.isfinite(image.affine).all() or abs(np.linalg.det(image.affine)) < 1e-12:
            raise UserError(f"{path} has an affine that does not place its voxels in space")
        return nibabel.funcs.squeeze_image(image)


def read_nifti_slice(path: Path) -> NDArray[Any]:
    """The values of a NIfTI file of one slice, whose second axis becomes the rows: H x W. Raises UserError as
    `open_nifti`, and for several slices."""
    image = open_nifti(path)
    if image.ndim > 2 and image.shape[2:] != (1,):
        raise UserError(f"{path} has shape {' x '.join(map(str, image.shape))}; expected one slice")
    with corrupt_file_as_user_error(path):
        return np.asarray(image.dataobj).reshape(image.shape[:2]).T
