"""Writing DICOM files for tests."""

from pathlib import Path
from typing import Any

import numpy as np


def write_dicom(path: Path, stored: np.ndarray, **elements: Any) -> Path:
    """Write a CT slice of 16-bit stored values, H x W or frames x H x W, with additional data elements."""
    import pydicom
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

    file = pydicom.Dataset()
    file.file_meta = pydicom.dataset.FileMetaDataset()
    file.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    file.file_meta.MediaStorageSOPClassUID = file.SOPClassUID = CTImageStorage
    file.file_meta.MediaStorageSOPInstanceUID = file.SOPInstanceUID = "1.2.3"
    file.Rows, file.Columns = stored.shape[-2:]
    file.SamplesPerPixel, file.PixelRepresentation = 1, 0
    file.BitsAllocated, file.BitsStored, file.HighBit = 16, 16, 15
    file.PhotometricInterpretation = "MONOCHROME2"
    file.PixelData = stored.tobytes()
    for name, value in elements.items():
        setattr(file, name, value)
    file.save_as(path, enforce_file_format=True)
    return path
