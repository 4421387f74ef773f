"""NIfTI files, read by nibabel if it is installed."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from utils.errors import UserError, corrupt_file_as_user_error
from utils.modules import optional_package

SUFFIXES = (".nii", ".nii.gz")
MAX_VOXELS = 2**30

PLANES = {"axial": "SPL", "coronal": "PIL", "sagittal": "LIP"}
"""For each plane, where slices, rows and columns lead: slices are seen as radiologists see them."""

Array = NDArray[Any]


def is_nifti(path: Path) -> bool:
    """Whether a file has the name of a NIfTI file."""
    return path.name.lower().endswith(SUFFIXES)


def open_nifti(path: Path) -> Any:
    """The nibabel image of a file, whose values have not been read yet: of a slice X x Y x 1; further dimensions of one
    element are dropped.

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
        if image.ndim == 2:
            return nibabel.Nifti1Image(np.asarray(image.dataobj)[..., None], image.affine, image.header)
        return nibabel.funcs.squeeze_image(image)


def read_nifti_slice(path: Path) -> Array:
    """The values of a NIfTI file of one slice, as it is seen in its plane: H x W. Raises UserError as `open_nifti`, and
    for several slices."""
    import nibabel

    image = open_nifti(path)
    if image.shape[2:] != (1,):
        raise UserError(f"{path} has shape {' x '.join(map(str, image.shape))}; expected one slice")
    across = nibabel.aff2axcodes(image.affine)[2]
    plane = {"S": "axial", "I": "axial", "P": "coronal", "A": "coronal"}.get(across, "sagittal")
    with corrupt_file_as_user_error(path):
        return reorient(np.asarray(image.dataobj), image.affine, plane)[0]


def reorient(values: Array, affine: Array, plane: str, *, back: bool = False) -> Array:
    """From the axes of a file, which its affine places in space, to slices, rows and columns of a plane, or back."""
    import nibabel

    orientations = [nibabel.io_orientation(affine), nibabel.orientations.axcodes2ornt(tuple(PLANES[plane]))]
    source, target = reversed(orientations) if back else orientations
    oriented: Array = nibabel.apply_orientation(values, nibabel.orientations.ornt_transform(source, target))
    return oriented.copy(order="C")  # NumPy takes a flipped axis of length 1 for contiguous, PyTorch does not
