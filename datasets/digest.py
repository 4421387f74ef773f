"""Recognising data that was replaced: by a digest of some images, and by what the file system says of the file."""

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path

from datasets.contract import AnnotatedDataset
from datasets.loading import EvaluationBatch, evaluation_batches, evenly_spaced_indices


def data_digest(data: AnnotatedDataset, indices: Sequence[int]) -> str:
    """A digest of the number of images and of the images and label maps of a few of `indices`."""
    digest = hashlib.sha256(str(len(data)).encode())
    for batch in read_few(data, indices):
        for tensor in (batch.images, batch.labels, *batch.original_labels):
            digest.update(str(tuple(tensor.shape)).encode() + tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()


def file_stamp(data: AnnotatedDataset) -> list[int]:
    """Size and time of modification of the file that a dataset names as its `source`; empty if it names none."""
    path = Path(getattr(data, "source", ""))
    return [path.stat().st_size, path.stat().st_mtime_ns] if path.is_file() else []


def read_few(data: AnnotatedDataset, indices: Sequence[int]) -> Iterable[EvaluationBatch]:
    """At most eight of the images, evenly spaced, one by one."""
    return evaluation_batches(data, [indices[place] for place in evenly_spaced_indices(len(indices), 8)], 1, workers=0)
