"""The tables of a report, read from the contents of `results.json`, so that the two cannot differ."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

from evaluation.figures import MEASURE_NAMES
from evaluation.published import PAPER

Contents = Mapping[str, Any]
"""What `results.json` holds, or one of its results."""


class Number(TypedDict):
    """A mean, and the ends of its interval where there is one."""

    mean: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Line:
    """A line of a table: its numbers, and its number of samples or steps."""

    count: int
    numbers: list[Number | None]
    seconds: float = 0.0


@dataclass(frozen=True)
class Group:
    """Lines under one name; `kind` is that of the result, or "paper"."""

    name: str
    kind: str
    lines: Sequence[Line]


def of_kind(contents: Contents, *kinds: str) -> list[Contents]:
    """The results that are of one of these kinds."""
    return [result for result in contents["results"] if result["kind"] in kinds]


def headline(contents: Contents) -> Contents:
    """The result that stands for the model: the one with the most samples."""
    return max(of_kind(contents, "model"), key=lambda result: counts_of(result)[-1])


def counts_of(result: Contents) -> list[int]:
    """The numbers of samples at which a result was read."""
    return sorted({row["num_samples"] for row in result["measures"] if row["num_samples"]})


def number_of(result: Contents, measure: str, count: int | None = None) -> Number | None:
    """A measure of a result, if it has it."""
    for row in result["measures"]:
        if (row["measure"], row["num_samples"]) == (measure, count):
            return Number(mean=row["mean"], low=row["low"], high=row["high"])
    return None


def by_count(contents: Contents) -> dict[str, Any]:
    """The table of the measures that depend on the number of samples, the paper's numbers last."""
    results = of_kind(contents, "model", "reference")
    measures = _measures(results, by_count=True)
    groups = [
        Group(result["name"], result["kind"], [_line(result, measures, count) for count in counts_of(result)])
        for result in results
    ]
    paper = PAPER.get(contents["dataset_file"])
    if paper is not None:
        lines = [
            Line(count, [_without_interval(paper.values.get((name, count))) for name in measures])
            for count in sorted({count for _, count in paper.values})
        ]
        groups.append(Group(f"paper, {paper.name}", "paper", lines))
    return {"columns": [MEASURE_NAMES.get(name, name) for name in measures], "groups": groups}


def overall(contents: Contents) -> dict[str, Any]:
    """The table of the measures taken once, a column for each predictor."""
    results = of_kind(contents, "model", "reference")
    lines: dict[str, list[Number | None]] = {
        MEASURE_NAMES.get(name, name): [number_of(result, name) for result in results]
        for name in _measures(results, by_count=False)
        if name != "diversity_labels"
    }
    for key, name in (
        ("expected_calibration_error", "ECE of probabilities"),
        ("expected_calibration_error_of_samples", "ECE of samples"),
        ("seconds_per_image", "Seconds per image"),
    ):
        lines[name] = [_without_interval(result[key]) for result in results]
    bits: Number | None = contents.get("bits_per_pixel")
    if bits is not None:
        lines["Bits per pixel, at most"] = [bits, *([None] * (len(results) - 1))]
    return {"names": [result["name"] for result in results], "lines": lines}


def sweep(contents: Contents) -> list[Group]:
    """The results of other steps: for each sampler a line per number of steps.

    Its numbers are GED, HM-IoU, and what each differs from its value with the most steps.
    """
    lines: dict[str, list[Line]] = {}
    for result in of_kind(contents, "sweep"):
        count, sampling = counts_of(result)[0], result["sampling"]
        numbers = [number_of(result, measure, count) for measure in ("ged", "hm_iou")]
        numbers += [Number(mean=row["mean"], low=row["low"], high=row["high"]) for row in result["differences"]]
        line = Line(sampling["steps"], numbers, result["seconds_per_image"])
        lines.setdefault(sampling["sampler"], []).append(line)
    return [Group(name, "sweep", sorted(lines[name], key=lambda line: line.count)) for name in sorted(lines)]


def _measures(results: Sequence[Contents], *, by_count: bool) -> list[str]:
    rows = (row for result in results for row in result["measures"])
    return list(dict.fromkeys(row["measure"] for row in rows if bool(row["num_samples"]) == by_count))


def _line(result: Contents, measures: Sequence[str], count: int) -> Line:
    return Line(count, [number_of(result, name, count) for name in measures])


def _without_interval(value: float | None) -> Number | None:
    return None if value is None else Number(mean=value, low=None, high=None)
