"""What stands on the page, and the page itself."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2

from evaluation.figures import MEASURE_NAMES
from evaluation.gallery import Exhibit
from evaluation.measures import column
from evaluation.protocol import Entry
from evaluation.published import PAPER
from evaluation.report import pictures, tables
from evaluation.report.tables import Contents, counts_of, headline, number_of, of_kind

_PROTOCOL_NAMES = {**MEASURE_NAMES, "ece": "ECE"}


def render_report(contents: Contents, entries: Sequence[Entry], exhibits: Sequence[Exhibit], time_steps: int) -> str:
    """The report as HTML; every number of its tables is one of `results.json`, the paper's aside.

    Args:
        contents: what `results.json` holds.
        entries: the same results, for the curves.
        exhibits: the images to show, see `evaluation.gallery`.
        time_steps: T of the process.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent, encoding="utf-8"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["decimals"] = lambda number, digits: f"{number:.{digits}f}"
    return environment.get_template("report.html.j2").render(_page(contents, entries, exhibits, time_steps))


def _page(contents: Contents, entries: Sequence[Entry], exhibits: Sequence[Exhibit], time_steps: int) -> dict[str, Any]:
    model, groups = headline(contents), tables.sweep(contents)
    count = counts_of(model)[-1]
    shown = pictures.exhibits_by_rank(exhibits, count)
    return {
        "title": f"CCDM on {contents['dataset_file']}",
        "subject": _subject(contents, time_steps),
        "headlines": [_headline(contents, "ged", "lower is better"), _headline(contents, "hm_iou", "higher is better")],
        "by_count": tables.by_count(contents),
        "diversity_labels": number_of(model, "diversity_labels"),
        "seeds_note": _seeds_note(contents, count),
        "differences": _differences(contents, time_steps),
        "overall": tables.overall(contents),
        "over_samples": pictures.curves_over_samples(entries, PAPER.get(contents["dataset_file"])),
        "sweep": groups,
        "sweep_count": counts_of(of_kind(contents, "sweep")[0])[0] if groups else 0,
        "most_steps": _most_steps(contents),
        "over_steps": pictures.curves_over_steps(entries, groups),
        "calibration": [pictures.reliability_diagram(entries)],
        "exhibits": shown,
        "films": [exhibit for members in shown.values() for exhibit in members if exhibit["film"]],
        "ranked_by": f"GED{count}",
        "time_steps": time_steps,
        "protocol": {_PROTOCOL_NAMES.get(name, name): words for name, words in contents["protocol"].items()},
        "checkpoint": {name.replace("_", " "): value for name, value in contents["checkpoint"].items()},
        "folded": {
            "Settings of the evaluation": flat(contents["settings"]),
            "Settings of the training": flat(contents["training_settings"]),
            "Versions": {**contents["versions"], "device": contents["device"]},
        },
    }


def _subject(contents: Contents, time_steps: int) -> str:
    model, settings = headline(contents), contents["settings"]
    seeds, steps = settings["seeds"], model["sampling"]["steps"] or time_steps
    return (
        f"{model['num_images']} images of the {settings['dataset_split']} split; {model['sampling']['sampler']} "
        f"sampler, {steps} of {time_steps} steps, {'seed' if len(seeds) == 1 else 'seeds'} "
        f"{', '.join(map(str, seeds))}; weights after {contents['checkpoint']['step']} steps of training."
    )


def _headline(contents: Contents, measure: str, better: str) -> dict[str, Any]:
    """The model's number at the most samples, with the oracle's and the paper's at as many."""
    model = headline(contents)
    count = counts_of(model)[-1]
    beside = [
        f"{result['name']} {number['mean']:.4f}"
        for result in of_kind(contents, "reference")
        if (number := number_of(result, measure, count)) is not None
    ]
    paper = PAPER.get(contents["dataset_file"])
    if paper is not None and (measure, count) in paper.values:
        beside.append(f"paper, {paper.name} {paper.values[measure, count]:.3f}")
    return {
        "name": f"{MEASURE_NAMES[measure]}{count}",
        "better": better,
        "number": number_of(model, measure, count),
        "beside": " · ".join(beside),
    }


def _most_steps(contents: Contents) -> str:
    """What the lines of other steps are compared with."""
    return next((row["less"] for result in of_kind(contents, "sweep") for row in result["differences"]), "")


def _seeds_note(contents: Contents, count: int) -> str:
    seeds, spread = contents["settings"]["seeds"], headline(contents)["standard_deviation_over_seeds"]
    if len(seeds) < 2:
        return ""
    ged, hm_iou = (spread[column(measure, count)] for measure in ("ged", "hm_iou"))
    return (
        f"The model's numbers are means over {len(seeds)} seeds; from seed to seed GED{count} has a standard "
        f"deviation of {ged:.4f}, HM-IoU{count} of {hm_iou:.4f}."
    )


def _differences(contents: Contents, time_steps: int) -> list[str]:
    """What to keep in mind when the numbers are compared with the paper's and with the oracle's."""
    paper, model = PAPER.get(contents["dataset_file"]), headline(contents)
    if paper is None:
        notes = [f"The paper reports no such numbers for {contents['dataset_file']}."]
    else:
        steps = model["sampling"]["steps"] or time_steps
        notes = [f"{paper.note} Here samples take {steps} steps, and {model['num_images']} images are scored."]
    if any(result["name"] == "oracle" for result in of_kind(contents, "reference")):
        notes.append(
            "The oracle draws as many samples from the true distribution of the label maps: what a perfect model "
            "would score on these images and annotators."
        )
    return notes


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
