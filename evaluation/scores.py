"""Scoring a predictor on a split, image by image."""

import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from datasets.loading import EvaluationBatch
from evaluation.predictors import Predictor
from utils.metrics import ImageTable, Interval, PairwiseIoU, bootstrap_interval, ged_from, hm_iou_from

METRICS = ("ged", "hm_iou", "diversity_labels", "diversity_samples")


@dataclass(frozen=True)
class Scores:
    """The scores of every image, and how long they took to predict.

    Attributes:
        rows: one array per metric, sorted by the images' indices, and `key`, those indices.
        groups: the patient (or other group) of each row.
        num_samples: label maps per image.
        seconds_per_image: wall time of the prediction.
    """

    rows: dict[str, NDArray[Any]]
    groups: NDArray[np.int64]
    num_samples: int
    seconds_per_image: float

    def mean(self, metric: str) -> float:
        """The mean over images."""
        return float(self.rows[metric].mean())

    def interval(self, metric: str) -> Interval:
        """The mean with its 95 % bootstrap interval; images of one group are drawn together."""
        return bootstrap_interval(self.rows[metric], self.groups)


def score(
    predictor: Predictor, batches: Iterable[EvaluationBatch], num_classes: int, title: str | None = None
) -> Scores:
    """Predict and score every image. A `title` shows a progress bar."""
    table = ImageTable([*METRICS, "group"])
    seconds, num_samples, num_images = 0.0, 0, 0
    for batch in tqdm(batches, desc=title, disable=title is None, leave=False):
        start = time.perf_counter()
        samples = predictor(batch).labels
        seconds += time.perf_counter() - start
        num_samples, num_images = samples.shape[1], num_images + len(samples)
        pairs = PairwiseIoU.of(batch.labels, samples, num_classes, batch.present)
        energy = ged_from(pairs)
        values = {**energy._asdict(), "hm_iou": hm_iou_from(pairs), "group": torch.tensor(batch.groups)}
        table.update(batch.indices, values)
    rows = table.compute()
    return Scores(rows, rows.pop("group").astype(np.int64), num_samples, seconds / max(1, num_images))
