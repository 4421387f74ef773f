"""The pictures of a report, each a data URI with the words for those who do not see it."""

import base64
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from matplotlib import rc_context
from matplotlib.figure import Figure
from PIL import Image

from evaluation import figures
from evaluation.evaluate import Entry
from evaluation.figures import MEASURE_NAMES
from evaluation.gallery import Exhibit
from evaluation.image_metrics import column
from evaluation.panels import Cell
from evaluation.published import Published
from evaluation.report.tables import Group


@dataclass(frozen=True)
class Picture:
    """A picture as the page holds it; of an annotator who is absent the source is empty."""

    source: str
    width: int
    height: int
    description: str
    caption: str


def curves_over_samples(entries: Sequence[Entry], paper: Published | None) -> list[Picture]:
    """GED and HM-IoU over the number of samples, where they were read at more than one."""
    shown = [entry for entry in entries if entry.kind != "sweep" and len(entry.scores.counts) > 1]
    pictures = []
    for measure in ("ged", "hm_iou"):
        figure = figures.over_samples(entries, measure, paper)
        if figure is not None:
            words = [
                _in_words(e.name, e.scores.counts, (e.scores.mean(measure, n) for n in e.scores.counts)) for e in shown
            ]
            name = f"{MEASURE_NAMES[measure]} over the number of samples"
            pictures.append(as_svg(figure, f"{name}: {'; '.join(words)}", f"{name}, with 95 % intervals"))
    return pictures


def curves_over_steps(entries: Sequence[Entry], groups: Sequence[Group]) -> list[Picture]:
    """GED, HM-IoU and seconds per image over the steps, where they were compared."""
    pictures = []
    for place, (measure, name) in enumerate((("ged", "GED"), ("hm_iou", "HM-IoU"), ("seconds", "Seconds per image"))):
        figure = figures.over_steps(entries, measure)
        if figure is not None:
            words = []
            for group in groups:
                numbers = [[*(n["mean"] for n in line.numbers if n is not None), line.seconds] for line in group.lines]
                words.append(_in_words(group.name, (line.count for line in group.lines), (n[place] for n in numbers)))
            pictures.append(as_svg(figure, f"{name} over steps: {'; '.join(words)}", f"{name} over steps"))
    return pictures


def reliability_diagram(entries: Sequence[Entry]) -> Picture:
    """Calibration of the model, beside the oracle's where there is one."""
    shown = [figures.headline(entries), *(entry for entry in entries if entry.name == "oracle")]
    words = "; ".join(f"{entry.name}: ECE {entry.scores.calibration_error('bins'):.4f}" for entry in shown)
    caption = "Reliability in ten equal bins of probability; below, the share of pixels and classes in each bin"
    return as_svg(figures.calibration(entries), f"Reliability diagram: {words}", caption)


def exhibits_by_rank(exhibits: Sequence[Exhibit], count: int) -> dict[str, list[dict[str, Any]]]:
    """What the page shows of each image, under its rank."""
    return {
        rank: [_shown(exhibit, count) for exhibit in members]
        for rank, members in groupby(exhibits, key=lambda exhibit: exhibit.rank)
    }


def _shown(exhibit: Exhibit, count: int) -> dict[str, Any]:
    name = exhibit.row["name"]
    values = (f"{MEASURE_NAMES[what]}{count} {exhibit.row[column(what, count)]:.4f}" for what in ("ged", "hm_iou"))
    panel = [as_png(cell, name) for cell in exhibit.panel]
    film = [as_png(cell, name) for cell in exhibit.film]
    wide = panel[0].width > 1.5 * panel[0].height
    return {"name": name, "scores": ", ".join(values), "panel": panel, "film": film, "size": "wide" if wide else ""}


def _in_words(name: str, places: Iterable[int], values: Iterable[float]) -> str:
    return f"{name} " + ", ".join(f"{value:.3f} at {place}" for place, value in zip(places, values, strict=True))


def as_svg(figure: Figure, description: str, caption: str) -> Picture:
    """A figure as SVG, the same to the byte for the same numbers."""
    buffer = io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with rc_context({"svg.hashsalt": "report", "svg.fonttype": "path"}):
        figure.savefig(buffer, format="svg", metadata=nothing)
    text = buffer.getvalue()
    width, height = (round(96 * float(inches)) for inches in figure.get_size_inches())
    return Picture(_data_uri("image/svg+xml", text[text.index("<svg") :].encode()), width, height, description, caption)


def as_png(cell: Cell, name: str, longest_side: int = 256) -> Picture:
    """A cell as PNG, pixel by pixel; of a large one every second, third, ..."""
    if cell.values is None:
        return Picture("", 0, 0, "", cell.title)
    pixels = cell.pixels()
    stride = -(-max(pixels.shape) // longest_side)
    picture = Image.fromarray(pixels[::stride, ::stride].copy())
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    source = _data_uri("image/png", buffer.getvalue())
    return Picture(source, picture.width, picture.height, f"{cell.title} of {name}", cell.title)


def _data_uri(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"
