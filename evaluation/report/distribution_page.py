"""The page of an evaluation against several annotators: what stands on it, and the page itself."""

from collections.abc import Sequence
from typing import Any

from evaluation.evaluate import Entry
from evaluation.figures import MEASURE_NAMES
from evaluation.gallery import Exhibit
from evaluation.image_metrics import column
from evaluation.published import PAPER
from evaluation.report import pictures, tables
from evaluation.report.frame import framed, render, subject
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
    return render("distribution.html.j2", _page(contents, entries, exhibits, time_steps))


def _page(contents: Contents, entries: Sequence[Entry], exhibits: Sequence[Exhibit], time_steps: int) -> dict[str, Any]:
    model, groups = headline(contents), tables.sweep(contents)
    count = counts_of(model)[-1]
    shown = pictures.exhibits_by_rank(exhibits, count)
    return {
        **framed(contents, _PROTOCOL_NAMES),
        "subject": subject(contents, model, time_steps),
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
    }


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
    number = number_of(model, measure, count)
    assert number is not None, f"the model has no {measure}"
    return {
        "name": f"{MEASURE_NAMES[measure]}{count}",
        "better": better,
        "value": f"{number['mean']:.4f}",
        "range": "" if number["low"] is None else f"[{number['low']:.3f}, {number['high']:.3f}]",
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
