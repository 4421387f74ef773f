"""DICOM-SEG objects of predicted volumes, by highdicom."""

from pathlib import Path

import numpy as np

from datasets.volumes import Array, Volume
from evaluation.classes import ClassTable
from utils.paths import write_atomically

_SERIES_NUMBER = 1000


def write_segmentation(path: Path, volume: Volume, labels: Array, classes: ClassTable) -> None:
    """Write the label map of a volume that was read from DICOM, with the axes of `Volume.restore`: one segment for each
    class other than void and background. Raises UserError if the file cannot be written."""
    import highdicom
    from pydicom.sr.codedict import codes

    assert volume.dicom is not None
    datasets, source = volume.dicom
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
    segmentation = highdicom.seg.Segmentation(
        datasets, source.with_array(numbers), "BINARY", segments, highdicom.UID(), _SERIES_NUMBER, highdicom.UID(), 1,
        manufacturer="CCDM", manufacturer_model_name="CCDM", software_versions="1", device_serial_number="0",
    )  # fmt: skip
    write_atomically(path, segmentation.save_as)
