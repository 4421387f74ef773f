"""Tables of an evaluation, made from the contents of `results.json`: as data for the report, as text and as CSV."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from evaluation.image_metrics import METRICS, column
from evaluation.results import Result
from utils.text import csv_text

Contents = Mapping[str, Any]
"""The contents of `results.json`, or one of its results."""

DASH, _TIMES, _DELTA = "\N{EN DASH}", "\N{MULTIPLICATION SIGN}", "\N{INCREMENT}"
_MISTAKES, _SMALLEST_MISTAKE = 5, 0.05


class Cell(NamedTuple):
    """A number as it is displayed, and its interval or an empty text."""

    mean: str
    ends: str = ""


class Group(NamedTuple):
    """Rows of a table that belong to one name; `kind` is that of the result, or "paper"."""

    name: str
    kind: str
    rows: list[list[Cell]]


class Table(NamedTuple):
    """A caption, the titles of the columns, and the rows by group; the first column has the groups' names."""

    caption: str
    head: list[str]
    groups: list[Group]


def of_kind(contents: Contents, *kinds: str) -> list[Contents]:
    """The results of some kinds; `contents["published"]` is of the kind "paper"."""
    published = [contents["published"]] if contents["published"] is not None else []
    return [result for result in [*contents["results"], *published] if result["kind"] in kinds]


def headline(contents: Contents) -> Contents:
    """The result of the model."""
    return of_kind(contents, "model")[0]


def headline_metrics(contents: Contents) -> list[str]:
    """The metrics by which models are compared."""
    return [name for name in _metrics([headline(contents)], by_num_samples=True) if METRICS[name].better]


def number(result: Contents, name: str, num_samples: int | None = None) -> Contents | None:
    """A metric of a result, with `mean` and perhaps `low` and `high`; None if it has no meaning or is not known."""
    rows = [row for row in result["metrics"] if (row["metric"], row["num_samples"]) == (name, num_samples)]
    return rows[0] if rows and rows[0]["mean"] is not None else None


def title(contents: Contents, name: str) -> str:
    """The name of a metric in tables and figures; mean IoU says at which size."""
    height, width = headline(contents)["size"]
    return f"Mean IoU, {height}{_TIMES}{width}" if name == "miou" else METRICS[name].title


def cell(name: str, row: Contents | None, decimals: int | None = None) -> Cell:
    """A metric with its interval; a dash if there is none."""
    if row is None or row["mean"] is None:
        return Cell(DASH)
    scale, ends = (100, 2) if METRICS[name].percent else (1, 3)
    low, high = row.get("low"), row.get("high")
    interval = "" if low is None or high is None else f"[{scale * low:.{ends}f}, {scale * high:.{ends}f}]"
    return Cell(f"{scale * row['mean']:.{METRICS[name].decimals if decimals is None else decimals}f}", interval)


def result_cell(result: Contents, name: str, num_samples: int | None = None) -> Cell:
    """A metric of a result; the paper's with the paper's decimals."""
    decimals = METRICS[name].decimals - 1 if result["kind"] == "paper" else None
    return cell(name, number(result, name, num_samples), decimals)


def by_num_samples(contents: Contents) -> Table:
    """The metrics that depend on the number of samples, a row per number: of predictors, annotators and paper."""
    results = of_kind(contents, "model", "baseline")
    names, groups = _metrics(results, by_num_samples=True), []
    for result in results + of_kind(contents, "paper"):
        rows = [[Cell(str(n)), *(result_cell(result, name, n) for name in names)] for n in result["num_samples"]]
        groups.append(Group(result["name"], result["kind"], rows))
    diversity = number(headline(contents), "diversity_labels")
    if diversity is not None:
        cells = [cell(name, diversity if name == "diversity_samples" else None) for name in names]
        groups.insert(len(results), Group("annotators", "", [[Cell(DASH), *cells]]))
    return Table("Results by number of samples", ["Predictor", "n", *(title(contents, name) for name in names)], groups)


def over_all_samples(contents: Contents) -> Table:
    """The metrics that are computed once, from all samples: a row per metric, a column per predictor."""
    results = of_kind(contents, "model", "baseline")
    names = [name for name in _metrics(results, by_num_samples=False) if name != "diversity_labels"]
    return _by_metric("Metrics of all samples", results, [(name, None) for name in names])


def variants(contents: Contents) -> Table:
    """The metrics that other papers define in another way, likewise; a row per number of samples if it matters."""
    results = of_kind(contents, "model", "baseline")
    names = _metrics(results, by_num_samples=False, variant=True)
    counted = _metrics(results, by_num_samples=True, variant=True)
    columns = [(name, n) for name in counted for n in headline(contents)["num_samples"]]
    return _by_metric("Metrics as other papers define them", results, [*((name, None) for name in names), *columns])


def _by_metric(caption: str, results: Sequence[Contents], columns: Sequence[tuple[str, int | None]]) -> Table:
    groups = []
    for name, n in columns:
        cells = [result_cell(result, name, n) for result in results]
        groups.append(Group(METRICS[name].title + ("" if n is None else f", n = {n}"), "", [cells]))
    return Table(caption, ["Metric", *(result["name"] for result in results)], groups)


def sweep(contents: Contents) -> Table | None:
    """Samplers and steps: a group per sampler, with the differences from the most steps; None without a sweep."""
    results, names = of_kind(contents, "sweep"), headline_metrics(contents)
    groups: dict[str, Group] = {}
    if not results:
        return None
    for result in results:
        cells = [result_cell(result, name, result["num_samples"][0]) for name in names]
        cells += [cell(row["metric"], row) for row in result["differences"]]
        cells.append(result_cell(result, "seconds"))
        sampling = result["sampling"]
        group = groups.setdefault(sampling["sampler"], Group(sampling["sampler"], "sweep", []))
        group.rows.append([Cell(str(sampling["steps"])), *cells])
    compared = [f"{_DELTA} {METRICS[row['metric']].title}" for row in results[0]["differences"]]
    head = ["Sampler", "Steps", *(title(contents, name) for name in names), *compared, "s/image"]
    return Table("Results by sampler and steps", head, list(groups.values()))


def by_class(contents: Contents, num_samples: Sequence[int]) -> Table | None:
    """IoU of every class, and its share of the annotated pixels, in percent; None for a distribution."""
    shown = [row for row in headline(contents)["metrics"] if "classes" in row and row["num_samples"] in num_samples]
    if not shown:
        return None
    pixels = _confusion(contents).sum(1)
    groups = []
    for name, share in zip(evaluated_classes(contents), pixels / max(1, pixels.sum()), strict=True):
        cells = [cell(row["metric"], {"mean": row["classes"][name]}) for row in shown]
        groups.append(Group(name, "", [[Cell(f"{100 * share:.2f}"), *cells]]))
    heads = [f"{title(contents, row['metric']).removeprefix('Mean ')}, n = {row['num_samples']}" for row in shown]
    return Table("IoU by class", ["Class", "Pixels", *heads], groups)


def evaluated_classes(contents: Contents) -> list[str]:
    """The names of all classes except void."""
    classes = contents["classes"]
    return [name for label, name in enumerate(classes["names"]) if label != classes["void"]]


def confusion_shares(contents: Contents) -> NDArray[Any]:
    """The confusion matrix of the evaluated classes, rows divided by their sums; NaN for a class without pixels."""
    matrix = _confusion(contents)
    with np.errstate(invalid="ignore"):
        shares: NDArray[Any] = matrix / matrix.sum(1, keepdims=True)
    return shares


def mistakes(contents: Contents) -> list[str]:
    """The most frequent confusions that affect at least one in twenty pixels of a class."""
    shares, names = np.nan_to_num(confusion_shares(contents)), evaluated_classes(contents)
    np.fill_diagonal(shares, 0)
    places = [divmod(int(place), len(shares)) for place in np.argsort(-shares, axis=None, kind="stable")[:_MISTAKES]]
    return [
        f"{names[true]} is taken for {names[predicted]} ({100 * shares[true, predicted]:.0f} %)"
        for true, predicted in places
        if shares[true, predicted] >= _SMALLEST_MISTAKE
    ]


def as_text(contents: Contents) -> str:
    """All tables for the terminal."""
    counts = headline(contents)["num_samples"]
    tables = [by_num_samples(contents), over_all_samples(contents), sweep(contents), by_class(contents, counts)]
    texts = []
    for table in tables:
        lines = [] if table is None else [table.head]
        for group in [] if table is None else table.groups:
            names = [group.name, *[""] * len(group.rows)]
            lines += [
                [name, *(" ".join(cell).strip() for cell in row)] for name, row in zip(names, group.rows, strict=False)
            ]
        widths = [max(map(len, cells)) for cells in zip(*lines, strict=True)]
        texts += [
            "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip() for line in lines
        ]
        texts += [""] if lines else []
    return "\n".join(texts).rstrip()


def results_csv(contents: Contents) -> str:
    """One line per predictor, metric, number of samples and class; without a class, the mean over classes."""
    lines = []
    for result in contents["results"]:
        for row in result["metrics"]:
            about = {"predictor": result["name"], "num_images": result["num_images"]}
            about |= {key: row[key] for key in ("metric", "num_samples")}
            lines.append({**about, **{key: row[key] for key in ("mean", "low", "high")}})
            lines += [{**about, "class": name, "mean": value} for name, value in row.get("classes", {}).items()]
    return _csv(["predictor", "metric", "num_samples", "class", "mean", "low", "high", "num_images"], lines)


def per_image_csv(results: Sequence[Result]) -> str:
    """One line per image and predictor, with every metric of the image on its own."""
    lines: list[dict[str, Any]] = []
    for result in results:
        columns = {column(metric.name, n): result.values(metric.name, n).tolist() for metric, n in result.metrics}
        for place, image in enumerate(result.images):
            about = {"predictor": result.name, "index": image.index, "name": image.name, "group": image.group}
            lines.append(about | {name: values[place] for name, values in columns.items()})
    return _csv(list(dict.fromkeys(name for line in lines for name in line)), lines)


def _csv(columns: Sequence[str], lines: Sequence[Mapping[str, Any]]) -> str:
    return csv_text([columns, *([line.get(name) for name in columns] for line in lines)])


def _metrics(results: Sequence[Contents], *, by_num_samples: bool, variant: bool = False) -> list[str]:
    names = dict.fromkeys(row["metric"] for result in results for row in result["metrics"])
    wanted = (by_num_samples, variant)
    return [name for name in names if (METRICS[name].by_num_samples, METRICS[name].variant) == wanted]


def _confusion(contents: Contents) -> NDArray[Any]:
    matrix, void = np.array(headline(contents)["statistics"]["miou"]), contents["classes"]["void"]
    return np.delete(np.delete(matrix, void, 0), void, 1)
