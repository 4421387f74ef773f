"""Means and intervals."""

import math

import numpy as np
import pytest
import torch

from evaluation import ImageScores, Result
from evaluation.image_metrics import METRICS
from evaluation.results import pooled_interval
from metrics import mean_iou


def result_of(geds: list[float], groups: list[int] | None = None) -> Result:
    images = [
        ImageScores(index, f"{index}", (groups or range(len(geds)))[index], (1, 1), {"ged_16": ged})
        for index, ged in enumerate(geds)
    ]
    return Result("distribution", [images], [16])


def test_interval_contains_the_mean_and_depends_on_the_groups() -> None:
    geds = [0.1, 0.5, 0.2, 0.9, 0.3, 0.4]
    mean, low, high = result_of(geds).interval("ged", 16)
    assert low < mean < high
    assert mean == pytest.approx(np.mean(geds))
    assert result_of(geds, [0, 0, 0, 1, 1, 1]).interval("ged", 16) != (mean, low, high)


def test_differences_are_paired_and_images_of_one_patient_drawn_together() -> None:
    many, few = result_of([0.1, 0.3, 0.2, 0.6]), result_of([0.2, 0.4, 0.3, 0.7])
    assert few.minus(many, "ged", 16) == pytest.approx((0.1, 0.1, 0.1))
    patients = [0, 0, 1, 1]  # within each, the differences cancel
    other = result_of([0.0, 0.4, 0.1, 0.7], patients).minus(result_of([0.1, 0.3, 0.2, 0.6], patients), "ged", 16)
    assert other == pytest.approx((0, 0, 0))


def test_pooled_interval_contains_the_mean_over_seeds() -> None:
    matrices = np.random.default_rng(0).integers(20, size=(2, 40, 3, 3)).astype(float)
    metric = METRICS["miou"]
    mean, low, high = pooled_interval(metric, matrices, list(range(40)))
    assert mean == pytest.approx(np.mean([float(mean_iou(torch.tensor(matrix))) for matrix in matrices.sum(1)]))
    assert low < mean < high < low + 0.1
    twins = pooled_interval(metric, matrices.repeat(2, 1), [group for group in range(40) for _ in range(2)])
    assert twins == pytest.approx((mean, low, high))  # twins in one group add no information
    assert math.isnan(pooled_interval(metric, matrices, [0] * 40).low)
