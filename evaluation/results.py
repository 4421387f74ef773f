"""The results of an evaluation: scores of images, their means and intervals, and `results.json`.

Tables, figures and the HTML report are made from the contents of `results.json` alone.
"""

import dataclasses
import json
import math
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from diffusion.samplers import SamplingConfig
from evaluation.classes import ClassTable
from evaluation.image_metrics import METRICS, SELECTION, Metric, Task, column, task_metrics
from metrics import Interval, bootstrap_interval, paired_bootstrap_interval

Kind = Literal["model", "baseline", "sweep"]
Values = NDArray[np.float64]

NUM_RESAMPLES = 1000
PROTOCOL: dict[Task, dict[str, str]] = {
    "distribution": {
        "annotators": "all that are present; pixels that one of them left void are excluded",
        "intervals": "95 % percentile bootstrap over images; images of one group (patient) are drawn together",
        "differences": "from the most steps, image by image; paired bootstrap of their mean",
    },
    "segmentation": {
        "confidence": "mean of the last step's probabilities over the first n samples; void is excluded",
        "majority": "share of the first n samples in which a class is the most probable; void is excluded",
        "confusion": "pixels of the images and seeds by true (rows) and predicted class, for the most samples",
        "intervals": "95 % percentile bootstrap over groups of images, whose confusion matrices are summed",
    },
}


@dataclasses.dataclass(frozen=True)
class ImageScores:
    """The metrics of one image and predictor."""

    index: int  # position in the dataset
    name: str
    group: int  # images of one group (patient) are not independent
    size: tuple[int, int]  # height and width of the prediction
    values: dict[str, Any]  # by `image_metrics.column`: a number or, to be pooled over images, nested lists


@dataclasses.dataclass(frozen=True)
class Result:
    """One predictor, scored on the images of a split."""

    task: Task
    per_seed: list[list[ImageScores]]  # for each seed, the scores of all images, sorted by index
    num_samples: list[int]  # at which it was scored, ascending
    name: str = "model"  # of the line in tables
    kind: Kind = "model"  # a baseline is what the model is compared with; a sweep, the model with other steps
    sampling: SamplingConfig | None = None  # how the model was sampled

    @property
    def images(self) -> list[ImageScores]:
        """The scores of the first seed."""
        return self.per_seed[0]

    @property
    def headline_metrics(self) -> list[tuple[str, int]]:
        """The metrics that select the best checkpoint, each with 1 if higher is better, or else -1."""
        return [(name, METRICS[name].better) for name in SELECTION[self.task]]

    @property
    def metrics(self) -> list[tuple[Metric, int | None]]:
        """All metrics that were computed, with their number of samples or None."""
        return [
            (metric, n)
            for metric in task_metrics(self.task)
            for n in (self.num_samples if metric.by_num_samples else [None])
            if column(metric.name, n) in self.images[0].values
        ]

    def statistics(self, name: str, num_samples: int | None = None) -> Values:
        """What was computed for a metric: seeds x images, and more axes if it is pooled over images."""
        key = column(name, num_samples)
        return np.array([[scores.values[key] for scores in images] for images in self.per_seed], dtype=np.float64)

    def values(self, name: str, num_samples: int | None = None) -> Values:
        """A metric of every image on its own, averaged over the seeds."""
        values: Values = _pooled(METRICS[name], self.statistics(name, num_samples), 2).mean(0)
        return values

    def by_seed(self, name: str, num_samples: int | None = None) -> Values:
        """A metric of all images for every seed."""
        statistics = self.statistics(name, num_samples)
        return statistics.mean(1) if METRICS[name].pool is None else _pooled(METRICS[name], statistics.sum(1), 1)

    def mean(self, name: str, num_samples: int | None = None) -> float:
        """A metric of all images, averaged over the seeds."""
        return float(self.by_seed(name, num_samples).mean())

    def interval(self, name: str, num_samples: int | None = None) -> Interval:
        """`mean` with its 95 % bootstrap interval; images of one group are drawn together."""
        metric, groups = METRICS[name], [scores.group for scores in self.images]
        if not metric.has_interval:
            return Interval(self.mean(name, num_samples), math.nan, math.nan)
        if metric.pool is None:
            return bootstrap_interval(self.values(name, num_samples), groups)
        return pooled_interval(metric, self.statistics(name, num_samples), groups)

    def minus(self, other: "Result", name: str, num_samples: int) -> Interval:
        """The difference of a metric from another result on the same images, with its paired interval."""
        here, there = (result.values(name, num_samples) for result in (self, other))
        return paired_bootstrap_interval(here, there, [scores.group for scores in self.images])


def pooled_interval(metric: Metric, statistics: Values, groups: Sequence[int]) -> Interval:
    """A pooled metric, averaged over the seeds, with its 95 % percentile bootstrap interval (NaN for a single group).

    Groups (patients) of images are drawn with replacement; the statistics are seeds x images x ...
    """
    names, members = np.unique(groups, return_inverse=True)
    sums = np.zeros((len(names), len(statistics), *statistics.shape[2:]))
    np.add.at(sums, members, statistics.swapaxes(0, 1))
    low = high = math.nan
    if len(names) > 1:
        times = np.random.default_rng(0).multinomial(len(names), np.full(len(names), 1 / len(names)), NUM_RESAMPLES)
        resampled = _pooled(metric, np.tensordot(times.astype(np.float64), sums, 1), 2)
        low, high = np.quantile(resampled.mean(1), [0.025, 0.975])
    return Interval(float(_pooled(metric, sums.sum(0), 1).mean()), float(low), float(high))


def _pooled(metric: Metric, statistics: Values, num_axes: int) -> Values:
    """A metric for every position on the first axes."""
    if metric.pool is None:
        return statistics
    flat = torch.from_numpy(statistics).flatten(0, num_axes - 1)
    values: Values = torch.stack([metric.pool(one) for one in flat]).numpy()
    return values.reshape(statistics.shape[:num_axes])


def results_contents(
    results: Sequence[Result], classes: ClassTable, published: Mapping[str, Any] | None, about: Mapping[str, Any]
) -> dict[str, Any]:
    """The contents of `results.json`: `about` (settings and checkpoint), protocol, versions and results.

    NaN, as in the interval of a single image, becomes None.
    """
    task = results[0].task
    sweep = [result for result in results if result.kind == "sweep" and task == "distribution"]
    most_steps = max(sweep, key=lambda result: (result.sampling and result.sampling.steps) or 0, default=None)
    definitions = {metric.name: metric.definition for metric, _ in results[0].metrics if metric.definition}
    contents = {
        **about,
        "task": task,
        "classes": {"names": classes.names, "colours": classes.colours.tolist(), "void": classes.void},
        "published": published,
        "protocol": definitions | PROTOCOL[task],
        "versions": {
            "device": torch.cuda.get_device_name() if torch.cuda.is_available() else platform.processor() or "cpu",
            "python": platform.python_version(),
            **{name: version(name) for name in ("torch", "torchvision", "numpy", "scipy")},
        },
        "results": [_as_dict(result, classes, most_steps) for result in results],
        "examples": [],
    }
    plain: dict[str, Any] = json.loads(json.dumps(contents), parse_constant=lambda constant: None)
    return plain


def _as_dict(result: Result, classes: ClassTable, most_steps: Result | None) -> dict[str, Any]:
    first, most = result.num_samples[0], result.num_samples[-1]
    return {
        "name": result.name,
        "kind": result.kind,
        "sampling": result.sampling.model_dump() if result.sampling else None,
        "num_images": len(result.images),
        "num_samples": result.num_samples,
        "size": result.images[0].size,
        "metrics": [_metric_as_dict(result, classes, metric, n) for metric, n in result.metrics],
        "differences": [
            {"metric": name, "minus": most_steps.name, **result.minus(most_steps, name, first)._asdict()}
            for name in SELECTION[result.task]
            if most_steps is not None and result.kind == "sweep"
        ],
        "statistics": {
            metric.name: result.statistics(metric.name, n).sum((0, 1)).tolist()
            for metric, n in result.metrics
            if metric.pool is not None and n in (None, most)
        },
    }


def _metric_as_dict(result: Result, classes: ClassTable, metric: Metric, n: int | None) -> dict[str, Any]:
    seeds = result.by_seed(metric.name, n)
    row = {
        "metric": metric.name,
        "num_samples": n,
        **result.interval(metric.name, n)._asdict(),
        "std_over_seeds": float(seeds.std(ddof=1)) if len(seeds) > 1 else None,
    }
    if metric.by_class is not None:
        sums = torch.from_numpy(result.statistics(metric.name, n).sum(1))
        values = torch.stack([metric.by_class(seed) for seed in sums]).nanmean(0).tolist()
        row["classes"] = {classes.names[label]: values[label] for label in classes.evaluated}
    return row
