"""The report of an evaluation: one HTML file without scripts or external resources.

It is made from `results.json` and the pictures that it names. To render it again: python -m evaluation.report FOLDER
"""

import base64
import io
import json
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
from matplotlib import rc_context
from matplotlib.figure import Figure
from PIL import Image

from evaluation import tables
from evaluation.figures import Curves, Point, calibration_figure, curve_figure
from evaluation.image_metrics import METRICS
from evaluation.tables import Contents, headline, number, of_kind
from utils.errors import UserError, corrupt_file_as_user_error, run_script
from utils.paths import write_text

_LONGEST_SIDE = {"distribution": 256, "segmentation": 512}  # pixels; street scenes have small details


class Picture(NamedTuple):
    """A picture in the page as a data URI; without a source, of an absent annotator."""

    source: str
    width: int
    height: int
    description: str
    caption: str


def write_report(folder: Path) -> None:
    """Render `report.html` of the evaluation in a folder. Raises UserError if the results or pictures in the folder
    cannot be read, or the report cannot be written."""
    path = folder / "results.json"
    if not path.is_file():
        raise UserError(f"there is no {path}; expected the folder of an evaluation")
    with corrupt_file_as_user_error(path):
        contents = json.loads(path.read_text(encoding="utf-8"))
    write_text(folder / "report.html", render_report(contents, folder))


def render_report(contents: Contents, folder: Path) -> str:
    """The report as HTML. Its words are in `report.html.j2`.

    Args:
        contents: of `results.json`.
        folder: that of `results.json`, to which the pictures' paths are relative.
    """
    loader = jinja2.FileSystemLoader(Path(__file__).parent, encoding="utf-8")
    environment = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.globals.update(metrics=METRICS, tables=tables, flat=flat)
    model = headline(contents)
    examples = [_example(contents, entry, folder) for entry in contents["examples"]]
    return environment.get_template("report.html.j2").render(
        contents=contents,
        model=model,
        n=model["num_samples"][-1],
        settings=contents["settings"],
        by_class=tables.by_class(contents, model["num_samples"][-1:]),
        calibration=_calibration(contents) if contents["task"] == "distribution" else None,
        samples_curves=_curves_over_samples(contents),
        steps_curves=_curves_over_steps(contents),
        colours=dict(zip(contents["classes"]["names"], contents["classes"]["colours"], strict=True)),
        examples={rank: list(some) for rank, some in groupby(examples, key=lambda example: example["rank"])},
        trajectories=[example for example in examples if example["trajectory"]],
    )


def _curves(
    contents: Contents, names: Sequence[str], points: Sequence[tuple[str, int, Contents, int]], over: str
) -> list[Picture]:
    """A figure per metric; each of `points` has the name of a curve, x, a result, and its number of samples."""
    pictures = []
    for name in names if points else []:
        curves: dict[str, list[Point]] = {}
        scale, unit = (100, ", %") if METRICS[name].percent else (1, "")
        for curve, x, result, n in points:
            row = number(result, name, n if METRICS[name].by_num_samples else None)
            if row is not None:
                ends = [None if row.get(end) is None else scale * row[end] for end in ("low", "high")]
                curves.setdefault(curve, []).append(Point(x, scale * row["mean"], *ends))
        title = tables.title(contents, name)
        figure = curve_figure(curves, over.removeprefix("the "), title + unit, log_y=name == "seconds")
        pictures.append(as_svg(figure, f"{title} over {over}: {in_words(curves)}", f"{title} over {over}"))
    return pictures


def _curves_over_samples(contents: Contents) -> list[Picture]:
    """The headline metrics over the number of samples, if there are several; the paper's last."""
    if len(headline(contents)["num_samples"]) < 2:
        return []
    results = [result for result in of_kind(contents, "model", "baseline", "paper") if len(result["num_samples"]) > 1]
    points = [(result["name"], n, result, n) for result in results for n in result["num_samples"]]
    return _curves(contents, tables.headline_metrics(contents), points, "the number of samples")


def _curves_over_steps(contents: Contents) -> list[Picture]:
    """The headline metrics and the seconds per image over the steps, a curve per sampler."""
    sweep = [(result, result["sampling"]) for result in of_kind(contents, "sweep")]
    points = [(sampling["sampler"], sampling["steps"], result, result["num_samples"][0]) for result, sampling in sweep]
    return _curves(contents, [*tables.headline_metrics(contents), "seconds"], points, "steps")


def in_words(curves: Curves) -> str:
    """Curves as text, for those who do not see them."""
    described = [(name, ", ".join(f"{point.y:.3f} at {point.x}" for point in curves[name])) for name in curves]
    return "; ".join(f"{name} {points}" for name, points in described)


def _calibration(contents: Contents) -> Picture:
    """Calibration of the model and, if there is one, of the oracle."""
    model = headline(contents)
    shown = [("model, probabilities", model, "ece"), ("model, samples", model, "ece_samples")]
    shown += [("oracle", result, "ece") for result in of_kind(contents, "baseline") if result["name"] == "oracle"]
    lines = {name: (result["statistics"][key], (number(result, key) or {})["mean"]) for name, result, key in shown}
    words = "; ".join(f"{name}: ECE {error:.4f}" for name, (_, error) in lines.items())
    caption = "Reliability in ten equal bins of probability; below, the share of pixels and classes in each bin"
    return as_svg(calibration_figure(lines), f"Reliability diagram: {words}", caption)


def _example(contents: Contents, entry: Contents, folder: Path) -> dict[str, Any]:
    """An entry of `examples` with its pictures."""
    strips = {
        kind: [as_png(folder, picture, entry["name"], _LONGEST_SIDE[contents["task"]]) for picture in entry[kind]]
        for kind in ("panel", "trajectory")
    }
    first = strips["panel"][0]
    size = "large" if contents["task"] == "segmentation" else "wide" if first.width > 1.5 * first.height else ""
    return {**entry, **strips, "size": size}


def as_svg(figure: Figure, description: str, caption: str) -> Picture:
    """A figure as SVG, with the same bytes for the same numbers."""
    buffer = io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with rc_context({"svg.hashsalt": "report", "svg.fonttype": "path"}):
        figure.savefig(buffer, format="svg", metadata=nothing)
    text = buffer.getvalue()
    width, height = (round(96 * float(inches)) for inches in figure.get_size_inches())
    return Picture(_data_uri("image/svg+xml", text[text.index("<svg") :].encode()), width, height, description, caption)


def as_png(folder: Path, picture: Contents, name: str, longest_side: int) -> Picture:
    """A picture of an example; of a large one, every second, third, ... pixel. Raises UserError if its file cannot be
    read."""
    if picture["file"] is None:
        return Picture("", 0, 0, "", picture["title"])
    path, buffer = folder / picture["file"], io.BytesIO()
    if not path.resolve().is_relative_to(folder.resolve()):
        raise UserError(f"{path} is not in {folder}")
    with corrupt_file_as_user_error(path), Image.open(path, formats=["PNG"]) as image:
        stride = -(-max(image.size) // longest_side)
        small = image.resize((max(1, image.width // stride), max(1, image.height // stride)), Image.Resampling.NEAREST)
        small.save(buffer, "PNG", optimize=True)
    source, description = _data_uri("image/png", buffer.getvalue()), f"{picture['title']} of {name}"
    return Picture(source, small.width, small.height, description, picture["title"])


def _data_uri(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def flat(settings: Contents, prefix: str = "") -> dict[str, str]:
    """Nested settings as lines, named as on the command line.

    >>> flat({"seed": 0, "optim": {"name": "Adam", "lr_params": {"power": 1.0}}, "class_weights": None})
    {'seed': '0', 'optim.name': 'Adam', 'optim.lr_params.power': '1.0', 'class_weights': 'null'}
    """
    lines: dict[str, str] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping) and value:
            lines |= flat(value, f"{prefix}{name}.")
        else:
            lines[prefix + name] = value if isinstance(value, str) else json.dumps(value, default=str)
    return lines


def main(argv: Sequence[str]) -> None:
    """Render the report of the evaluation in a folder again."""
    if len(argv) != 1:
        raise UserError("expected one folder: python -m evaluation.report FOLDER")
    with corrupt_file_as_user_error(argv[0]):
        write_report(Path(argv[0]))


if __name__ == "__main__":
    run_script(main, __doc__)
