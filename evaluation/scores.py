"""Scoring a predictor on a split, image by image."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from datasets import AnnotatedDataset
from datasets.loading import EvaluationBatch
from evaluation.cache import Row, RowStore
from evaluation.image_metrics import BINS, column, measure
from evaluation.predictors import Predictor
from evaluation.sharing import fill
from metrics import Interval, bootstrap_interval, expected_calibration_error_from


@dataclass(frozen=True)
class Scores:
    """The results of every image: one row each, sorted by the images' indices.

    Attributes:
        rows: `index`, `name`, `group`, `seconds`, one number per measure (see `evaluation.image_metrics`), and the bins.
        counts: the numbers of samples at which GED, HM-IoU and sample diversity were read.
    """

    rows: list[Row]
    counts: list[int]

    def values(self, measure: str, count: int = 0) -> NDArray[np.float64]:
        """One number per image."""
        return np.array([row[column(measure, count)] for row in self.rows])

    def mean(self, measure: str, count: int = 0) -> float:
        """The mean over images."""
        return float(self.values(measure, count).mean())

    def interval(self, measure: str, count: int = 0) -> Interval:
        """The mean with its 95 % bootstrap interval; images of one group (patient) are drawn together."""
        return bootstrap_interval(self.values(measure, count), [row["group"] for row in self.rows])

    def bins(self, which: str) -> Tensor:
        """Calibration bins summed over images: 3 x bins; `which` is one of `BINS`."""
        return torch.tensor([row[which] for row in self.rows], dtype=torch.float64).sum(0)

    def calibration_error(self, which: str) -> float:
        """Expected calibration error over all pixels of all images."""
        return float(expected_calibration_error_from(self.bins(which)))

    @property
    def seconds_per_image(self) -> float:
        """Wall time of the prediction per image."""
        return float(np.mean([row["seconds"] for row in self.rows]))


def score(
    predictor: Predictor,
    dataset: AnnotatedDataset,
    indices: list[int],
    counts: list[int],
    *,
    batch_size: int = 16,
    workers: int = 0,
    store: RowStore | None = None,
    title: str | None = None,
    between: Callable[[], None] | None = None,
) -> Scores:
    """Predict and score the images of `indices`, without those that `store` already holds.

    A predictor that gives fewer samples than a count asks for is read at what it gives. The processes of a run share
    the work; for `title` and `between` see `evaluation.sharing.fill`.
    """
    store = store or RowStore()
    todo = [index for index in indices if index not in store.rows]

    def rows_of(batch: EvaluationBatch) -> list[Row]:
        return _rows(predictor, batch, dataset.num_classes, counts)

    fill(store, rows_of, dataset, todo, batch_size, workers, title=title, between=between)
    rows = [store.rows[index] for index in sorted(indices)]
    return Scores(rows, [count for count in sorted({*counts, 1}) if column("ged", count) in rows[0]])


def _rows(predictor: Predictor, batch: EvaluationBatch, num_classes: int, counts: list[int]) -> list[Row]:
    start = time.perf_counter()
    prediction = predictor(batch)
    seconds = (time.perf_counter() - start) / len(batch.images)
    available = prediction.labels.shape[1]
    values = measure(batch, prediction, num_classes, [count for count in counts if count <= available] or [available])
    columns: dict[str, list[Any]] = {name: tensor.tolist() for name, tensor in values.items()}
    return [
        {
            "index": int(index),
            "name": batch.names[row],
            "group": batch.groups[row],
            "seconds": seconds,
            **{name: cells[row] for name, cells in columns.items()},
        }
        for row, index in enumerate(batch.indices)
    ]


__all__ = ["BINS", "Scores", "score"]
