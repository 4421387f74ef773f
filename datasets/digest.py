"""Recognising data that was replaced: by a digest of some images, and by what the file system says of the files."""

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


def file_stamp(data: AnnotatedDataset) -> str:
    """A digest of the names, sizes and times of modification of the files that a dataset reads: `source_files` or, if
    it does not list them, its `source`."""
    digest = hashlib.sha256()
    for path in map(Path, getattr(data, "source_files", [getattr(data, "source", "")])):
        if path.is_file():
            digest.update(f"{path}\0{path.stat().st_size} {path.stat().st_mtime_ns}\0".encode(errors="replace"))
    return digest.hexdigest()


def read_few(data: AnnotatedDataset, indices: Sequence[int]) -> Iterable[EvaluationBatch]:
    """At most eight of the images, evenly spaced, one by one."""
    return evaluation_batches(data, [indices[place] for place in evenly_spaced_indices(len(indices), 8)], 1, workers=0)
