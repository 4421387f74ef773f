"""DICOM-SEG objects of predicted volumes, by highdicom."""

from pathlib import Path
from typing import Any

import numpy as np

from datasets.nifti import Array
from datasets.volumes import Volume
from evaluation.classes import ClassTable
from utils.logs import LOGGER
from utils.paths import write_atomically

_SERIES_NUMBER = 1000
_MAY_BE_EMPTY = (
    "PatientID", "PatientName", "PatientBirthDate", "PatientSex", "StudyID", "StudyDate", "StudyTime", "AccessionNumber"
)  # fmt: skip


def write_segmentation(path: Path, volume: Volume, labels: Array, classes: ClassTable) -> None:
    """Write the label map of a volume that was read from DICOM, with the axes of `Volume.restore`: one segment for each
    class other than void and background.

    A warning says why there is no file if the attributes of the source do not allow one. Raises UserError if the file
    cannot be written.
    """
    try:
        segmentation = _segmentation(volume, labels, classes)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        LOGGER.warning("%s: no %s, since highdicom does not accept the source: %s", volume.path, path.name, error)
        return
    write_atomically(path, segmentation.save_as)


def _segmentation(volume: Volume, labels: Array, classes: ClassTable) -> Any:
    import highdicom
    from pydicom.sr.codedict import codes

    assert volume.dicom is not None
    datasets, source = volume.dicom
    for dataset in datasets:  # which may lack them after de-identification, but highdicom reads them
        for name in _MAY_BE_EMPTY:
            if name not in dataset:
                setattr(dataset, name, "")
    algorithm = highdicom.AlgorithmIdentificationSequence(
        name="CCDM", version="1", family=codes.DCM.ArtificialIntelligence
    )
    segments, numbers = [], np.zeros_like(labels)
    for number, label in enumerate(classes.shown, start=1):
        numbers[labels == label] = number
        segments.append(
            highdicom.seg.SegmentDescription(
                number, classes.names[label], codes.SCT.Tissue, codes.SCT.Tissue, "AUTOMATIC", algorithm
            )
        )
    return highdicom.seg.Segmentation(
        datasets, source.with_array(numbers), "BINARY", segments, highdicom.UID(), _SERIES_NUMBER, highdicom.UID(), 1,
        manufacturer="CCDM", manufacturer_model_name="CCDM", software_versions="1", device_serial_number="0",
    )  # fmt: skip
