"""Figures of an evaluation: curves over the number of samples and the steps, calibration, a confusion matrix."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter
from numpy.typing import NDArray

from evaluation.evaluate import Entry
from evaluation.published import Published
from evaluation.scores import Scores
from metrics import Interval, reliability

MEASURE_NAMES = {
    "ged": "GED",
    "hm_iou": "HM-IoU",
    "diversity_samples": "Diversity of samples",
    "diversity_labels": "Diversity of annotators",
    "max_dice": "Matched Dice",
    "dice_of_mean": "Dice of mean",
    "iou_of_mean": "IoU of mean",
    "ncc": "NCC",
    "brier": "Brier score",
}
"""What measures are called where people read them; others go by their own name."""

# Told apart by the colour-blind, and by their marks in grey print (Okabe and Ito, Color Universal Design, 2008).
_MODEL, _ORACLE, _PAPER, _OTHER = "#0072b2", "#d55e00", "#000000", "#cc79a7"
_LINES = [(_MODEL, "o"), (_ORACLE, "s"), (_OTHER, "^"), ("#009e73", "D")]
_GRID, _INK = "#d9dde2", "#333a42"
_LONGEST_NAME = 18
_SIZE = (4.4, 3.1)  # inches: letters stay readable where the picture fills a phone


def headline(entries: Sequence[Entry]) -> Entry:
    """The entry that stands for the model: the one with the most samples."""
    return max((entry for entry in entries if entry.kind == "model"), key=lambda entry: entry.scores.counts[-1])


def over_samples(entries: Sequence[Entry], measure: str, paper: Published | None) -> Figure | None:
    """GED or HM-IoU over the number of samples, with its 95 % band; None where it was read at one number only."""
    model = headline(entries)
    if len(model.scores.counts) < 2:
        return None
    with _axes("number of samples n", MEASURE_NAMES[measure], log="x") as axes:
        _band(axes, model.name, model.scores, measure, _MODEL, "o")
        for entry in entries:
            if entry.kind == "reference" and len(entry.scores.counts) > 1:
                _band(axes, entry.name, entry.scores, measure, _ORACLE, "s")
        points = sorted((n, value) for (name, n), value in (paper.values if paper else {}).items() if name == measure)
        if paper is not None and points:
            axes.plot(*zip(*points, strict=True), "k*:", markersize=8, linewidth=1, label=f"paper, {paper.name}")
        _plain_ticks(axes, sorted({*model.scores.counts, *(n for n, _ in points)}))
    return _figure(axes)


def over_steps(entries: Sequence[Entry], measure: str) -> Figure | None:
    """GED, HM-IoU or `seconds` over the number of steps, a line for each sampler; None where no sweep was run."""
    lines = sweeps(entries)
    if not lines:
        return None
    count = next(iter(lines.values()))[0].scores.counts[0]
    what = "seconds per image" if measure == "seconds" else f"{MEASURE_NAMES[measure]}, n = {count}"
    with _axes("steps", what, log="both" if measure == "seconds" else "x") as axes:
        for place, (sampler, points) in enumerate(lines.items()):
            colour, marker = _LINES[place % len(_LINES)]
            steps = [_steps(entry) * 1.02**place for entry in points]  # so that bars stand side by side
            if measure == "seconds":
                seconds = [entry.scores.seconds_per_image for entry in points]
                axes.plot(steps, seconds, marker=marker, color=colour, label=sampler)
            else:
                values = [entry.scores.interval(measure, count) for entry in points]
                _error_bars(axes, steps, values, sampler, colour, marker)
        _plain_ticks(axes, sorted({_steps(entry) for points in lines.values() for entry in points}))
    return _figure(axes)


def sweeps(entries: Sequence[Entry]) -> dict[str, list[Entry]]:
    """The entries of other steps by their sampler, in order of steps."""
    lines: dict[str, list[Entry]] = {}
    for entry in sorted((entry for entry in entries if entry.kind == "sweep" and entry.sampling), key=_steps):
        assert entry.sampling is not None
        lines.setdefault(entry.sampling.sampler, []).append(entry)
    return dict(sorted(lines.items()))


def calibration(entries: Sequence[Entry]) -> Figure:
    """Reliability diagram of the model's probabilities, its samples and the oracle, over how many pixels there are."""
    model = headline(entries)
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(4.4, 4.4), layout="constrained")
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[4, 1])
        _style(upper, "", "frequency among the annotators", log="")
        _style(lower, "predicted probability", "share", log="y")
        upper.plot([0, 1], [0, 1], color=_INK, linewidth=0.8, linestyle=":", label="perfect")
        _reliability(upper, model.scores, "bins", "model, probabilities", _MODEL, "o-")
        _reliability(upper, model.scores, "bins_samples", "model, samples", _OTHER, "^--")
        for entry in entries:
            if entry.name == "oracle":
                _reliability(upper, entry.scores, "bins", "oracle", _ORACLE, "s-.")
        upper.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
        _legend(upper)
        counts = reliability(model.scores.bins("bins")).count.numpy()
        edges = np.linspace(0, 1, len(counts) + 1)
        lower.bar(edges[:-1], counts / counts.sum(), width=np.diff(edges), align="edge", color=_MODEL, edgecolor="w")
    return figure


def confusion(shares: NDArray[Any], names: Sequence[str]) -> Figure:
    """A confusion matrix: of the pixels of each true class (row) the share that each class was predicted for.

    Args:
        shares: in [0, 1], C x C; NaN in the row of a class without pixels.
        names: the C classes; long ones are cut off, to leave the matrix its place.
    """
    number = len(names)
    names = [name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 1]}…" for name in names]
    side = min(1.7 + 0.34 * number, 12)
    letters = min(8.0, 65 * side / (number + 5))  # points
    with matplotlib.rc_context(_STYLE):
        axes = Figure(figsize=(side, side), layout="constrained").subplots()
        axes.pcolormesh(shares, cmap="Blues", vmin=0, vmax=1, edgecolor="white", linewidth=0.5)
        axes.set(aspect="equal", xlabel="predicted class", ylabel="true class")
        middles = np.arange(number) + 0.5
        axes.set_xticks(middles, names, rotation=90, fontsize=letters, parse_math=False)
        axes.set_yticks(middles, names, fontsize=letters, parse_math=False)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        axes.invert_yaxis()
        for (row, column), share in np.ndenumerate(shares):
            if share >= 0.005:
                colour = "white" if share > 0.6 else _INK
                place = column + 0.5, row + 0.5
                axes.text(*place, f"{100 * share:.0f}", color=colour, ha="center", va="center", size=0.85 * letters)
    return _figure(axes)


_STYLE: Any = {
    "axes.edgecolor": _INK,
    "axes.labelcolor": _INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "font.size": 9.5,
    "lines.linewidth": 1.6,
    "lines.markersize": 5,
    "text.color": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
}


@contextmanager
def _axes(x: str, y: str, log: str) -> Iterator[Axes]:
    """An empty diagram; what is drawn into it gets a legend."""
    with matplotlib.rc_context(_STYLE):
        axes = Figure(figsize=_SIZE, layout="constrained").subplots()
        _style(axes, x, y, log)
        yield axes
        _legend(axes)


def _style(axes: Axes, x: str, y: str, log: str) -> None:
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    if log in ("x", "both"):
        axes.set_xscale("log", base=2)
    if log in ("y", "both"):
        axes.set_yscale("log")
    axes.grid(color=_GRID, linewidth=0.6)
    axes.set_axisbelow(True)


def _legend(axes: Axes) -> None:
    axes.legend(loc="best", frameon=True, framealpha=0.85, edgecolor="none", fontsize=8.5)


def _figure(axes: Axes) -> Figure:
    figure = axes.get_figure()
    assert isinstance(figure, Figure)
    return figure


def _band(axes: Axes, name: str, scores: Scores, measure: str, colour: str, marker: str) -> None:
    means, lows, highs = zip(*(scores.interval(measure, count) for count in scores.counts), strict=True)
    axes.plot(scores.counts, means, marker=marker, color=colour, label=name)
    axes.fill_between(scores.counts, lows, highs, color=colour, alpha=0.15, linewidth=0)


def _error_bars(axes: Axes, steps: list[float], values: list[Interval], name: str, colour: str, marker: str) -> None:
    means, lows, highs = (np.array(column) for column in zip(*values, strict=True))
    ends = np.nan_to_num(np.stack([means - lows, highs - means]).clip(min=0))
    axes.errorbar(steps, means, ends, marker=marker, color=colour, label=name, capsize=3, elinewidth=1)


def _reliability(axes: Axes, scores: Scores, which: str, name: str, colour: str, line: str) -> None:
    points = reliability(scores.bins(which))
    filled = points.count.numpy() > 0
    error = scores.calibration_error(which)
    confidence, frequency = points.confidence.numpy()[filled], points.frequency.numpy()[filled]
    axes.plot(confidence, frequency, line, color=colour, label=f"{name}, ECE {error:.4f}")


def _plain_ticks(axes: Axes, values: Sequence[int]) -> None:
    """The numbers themselves below the axis, and no powers."""
    axes.set_xticks(list(values), [str(value) for value in values])
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.tick_params(axis="x", which="minor", length=0)
    if axes.get_yscale() == "log":
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(ScalarFormatter())
        axes.yaxis.set_minor_formatter(NullFormatter())


def _steps(entry: Entry) -> int:
    return (entry.sampling.steps if entry.sampling else None) or 0
