"""The tables of a semantic segmentation's report, in percent, read from the contents of `results.json`."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evaluation.classes import Classes
from evaluation.report.tables import Contents, Group, Line, Number, counts_of, of_kind
from evaluation.segmentation import SIZES

_MISTAKES, _LEAST = 5, 0.05


@dataclass(frozen=True)
class ClassLine:
    """A class: its colour in CSS, its share of the pixels, and its IoU at each size, in percent."""

    name: str
    colour: str
    pixels: float
    values: list[float | None]


@dataclass(frozen=True)
class Mistake:
    """A class that is taken for another, and how often, in percent of its pixels."""

    true: str
    predicted: str
    percent: float


def sizes_of(result: Contents) -> list[str]:
    """Those of `SIZES` at which a result was read."""
    return [size for size in SIZES if any(row["size"] == size for row in result["measures"])]


def measure_of(result: Contents, size: str, count: int) -> Contents | None:
    """What was measured at a size with a number of samples, if it was."""
    return next((row for row in result["measures"] if (row["size"], row["num_samples"]) == (size, count)), None)


def percent_of(result: Contents, size: str, count: int) -> Number | None:
    """The mean IoU in percent."""
    measure = measure_of(result, size, count)
    if measure is None or measure["mean_iou"]["mean"] is None:
        return None
    low, high = (None if end is None else 100 * end for end in (measure["mean_iou"][name] for name in ("low", "high")))
    return Number(mean=100 * measure["mean_iou"]["mean"], low=low, high=high)


def paper_of(contents: Contents) -> dict[int, float]:
    """The paper's mean IoU in percent by number of samples, at the network's size."""
    return {int(count): value for count, value in contents["published_mean_iou_in_percent"].items()}


def by_count(contents: Contents) -> list[Group]:
    """The mean IoU by number of samples, a column for each size, the paper's numbers last."""
    (model,) = of_kind(contents, "model")
    groups = [Group(model["name"], "model", [_line(model, count, count) for count in counts_of(model)])]
    paper = paper_of(contents)
    if paper:
        elsewhere = [None] * (len(sizes_of(model)) - 1)
        lines = [Line(n, [Number(mean=value, low=None, high=None), *elsewhere]) for n, value in paper.items()]
        groups.append(Group("paper", "paper", lines))
    return groups


def sweep(contents: Contents) -> list[Group]:
    """The mean IoU with other steps: for each sampler a line per number of steps."""
    lines: dict[str, list[Line]] = {}
    for result in of_kind(contents, "sweep"):
        sampling = result["sampling"]
        lines.setdefault(sampling["sampler"], []).append(_line(result, sampling["steps"], counts_of(result)[0]))
    return [Group(name, "sweep", sorted(lines[name], key=lambda line: line.count)) for name in sorted(lines)]


def by_class(result: Contents, classes: Classes) -> list[ClassLine]:
    """A line for each class, with the most samples."""
    count = counts_of(result)[-1]
    measures = [measure_of(result, size, count) for size in sizes_of(result)]
    pixels = np.array(result["confusion"]["network"]).sum(1)
    return [
        ClassLine(
            name,
            f"rgb({', '.join(map(str, colour))})",
            100 * float(number / max(1, pixels.sum())),
            [None if m is None or m["iou"][name] is None else 100 * m["iou"][name] for m in measures],
        )
        for name, colour, number in zip(classes.names, classes.palette().tolist(), pixels, strict=False)
    ]


def shares_of(result: Contents) -> NDArray[Any]:
    """The confusion matrix at the network's size, each row divided by its sum; NaN where a class has no pixels."""
    matrix = np.array(result["confusion"]["network"], dtype=float)
    with np.errstate(invalid="ignore"):
        return matrix / matrix.sum(1, keepdims=True)


def mistakes(shares: NDArray[Any], classes: Classes) -> list[Mistake]:
    """The most frequent mistakes, of those that at least one in twenty pixels of a class meets with."""
    wrong = np.nan_to_num(shares) * (1 - np.eye(len(shares)))
    places = np.argsort(-wrong, axis=None, kind="stable")[:_MISTAKES]
    found = [(*divmod(int(place), len(shares)), float(wrong.flat[place])) for place in places]
    return [
        Mistake(classes.names[true], classes.names[predicted], 100 * share)
        for true, predicted, share in found
        if share >= _LEAST
    ]


def _line(result: Contents, shown: int, count: int) -> Line:
    numbers = [percent_of(result, size, count) for size in sizes_of(result)]
    return Line(shown, numbers, result["seconds_per_image"])
