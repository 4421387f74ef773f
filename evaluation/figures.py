"""Figures of an evaluation: curves over samples and steps, calibration."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import matplotlib
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter

from metrics import reliability

# Distinguishable for the colour-blind, and by their markers in grey (Okabe and Ito, Color Universal Design, 2008).
_STYLES = [("#0072b2", "o-"), ("#d55e00", "s-"), ("#cc79a7", "^-"), ("#009e73", "D-")]
_PAPER = ("#000000", "*:")
_GRID, _INK = "#d9dde2", "#333a42"
_INKED = ("axes.edgecolor", "axes.labelcolor", "text.color", "xtick.color", "ytick.color")
_STYLE: Any = dict.fromkeys(_INKED, _INK) | dict.fromkeys(("axes.spines.right", "axes.spines.top"), False)
_STYLE |= {"font.size": 9.5, "lines.linewidth": 1.6, "lines.markersize": 5}


class Point(NamedTuple):
    """A point of a curve and its interval, if there is one."""

    x: int
    y: float
    low: float | None = None
    high: float | None = None


Curves = Mapping[str, Sequence[Point]]
"""Curves by their names."""


def curve_figure(curves: Curves, x_label: str, y_label: str, log_y: bool = False) -> Figure:
    """Curves over a logarithmic axis, with their 95 % bands; the name of the paper's begins with "paper"."""
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(4.4, 3.1), layout="constrained")  # inches: readable at the width of a phone
        axes = figure.subplots()
        _decorate(axes, x_label, y_label)
        axes.set_xscale("log", base=2)
        axes.set_yscale("log" if log_y else "linear")
        for place, (name, points) in enumerate(curves.items()):
            colour, line = _PAPER if name.startswith("paper") else _STYLES[place % len(_STYLES)]
            x, y, low, high = (np.array(column, dtype=float) for column in zip(*points, strict=True))
            axes.plot(x, y, line, color=colour, label=name)
            axes.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)
        ticks = sorted({point.x for points in curves.values() for point in points})
        axes.set_xticks(ticks, [str(tick) for tick in ticks])
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.tick_params(axis="x", which="minor", length=0)
        if log_y:
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.yaxis.set_major_formatter(ScalarFormatter())
            axes.yaxis.set_minor_formatter(NullFormatter())
        _legend(axes)
    return figure


def calibration_figure(lines: Mapping[str, tuple[Sequence[Sequence[float]], float]]) -> Figure:
    """A reliability diagram, above the share of pixels and classes in each bin of the first line.

    Args:
        lines: by name, calibration bins (see `metrics.calibration_bins`) and their expected calibration error.
    """
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(4.4, 4.4), layout="constrained")
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[4, 1])
        _decorate(upper, "", "frequency among the annotators")
        _decorate(lower, "predicted probability", "share")
        upper.plot([0, 1], [0, 1], color=_INK, linewidth=0.8, linestyle=":", label="perfect")
        for (name, (bins, error)), (colour, line) in zip(lines.items(), _STYLES, strict=False):
            points = reliability(torch.tensor(bins, dtype=torch.float64))
            filled = points.count > 0
            label = f"{name}, ECE {error:.4f}"
            upper.plot(points.confidence[filled], points.frequency[filled], line, color=colour, label=label)
        upper.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
        _legend(upper)
        counts = np.array(next(iter(lines.values()))[0][0])
        edges = np.linspace(0, 1, len(counts) + 1)
        lower.set_yscale("log")
        lower.yaxis.set_minor_formatter(NullFormatter())
        lower.bar(edges[:-1], counts / counts.sum(), np.diff(edges), align="edge", color=_STYLES[0][0], edgecolor="w")
    return figure


def _decorate(axes: Axes, x_label: str, y_label: str) -> None:
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.grid(color=_GRID, linewidth=0.6)
    axes.set_axisbelow(True)


def _legend(axes: Axes) -> None:
    axes.legend(loc="best", frameon=True, framealpha=0.85, edgecolor="none", fontsize=8.5)
