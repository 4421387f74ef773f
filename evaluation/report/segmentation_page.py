"""The page of a semantic segmentation's evaluation: what stands on it, and the page itself."""

from collections.abc import Sequence
from itertools import groupby
from typing import Any

from evaluation import figures
from evaluation.classes import Classes
from evaluation.gallery import Exhibit
from evaluation.report import segmentation_tables as tables
from evaluation.report.frame import framed, render, subject
from evaluation.report.pictures import Picture, as_png, as_svg
from evaluation.report.tables import Contents, counts_of, of_kind
from evaluation.segmentation_gallery import own_scores

_PROTOCOL_NAMES = {
    "iou": "IoU", "mean_iou": "Mean IoU", "network": "Network's size", "original": "Original size"
}  # fmt: skip
_NONE, _BY = "\N{EN DASH}", "\N{MULTIPLICATION SIGN}"
_LONGEST_SIDE = 512  # pixels: street scenes are full of small things


def render_segmentation_report(
    contents: Contents, classes: Classes, exhibits: Sequence[Exhibit], time_steps: int
) -> str:
    """The report as HTML; every number of its tables is one of `results.json`.

    Args:
        contents: what `results.json` holds.
        classes: the classes that were evaluated.
        exhibits: the images to show, see `evaluation.segmentation_gallery`.
        time_steps: T of the process.
    """
    return render("segmentation.html.j2", _page(contents, classes, exhibits, time_steps))


def _page(contents: Contents, classes: Classes, exhibits: Sequence[Exhibit], time_steps: int) -> dict[str, Any]:
    (model,) = of_kind(contents, "model")
    count, sweep = counts_of(model)[-1], of_kind(contents, "sweep")
    fused = f"{_samples(count)} an image, fused by {contents['settings']['evaluation_vote_strategy']}."
    found = tables.mistakes(tables.shares_of(model), classes)
    return {
        **framed(contents, _PROTOCOL_NAMES),
        "subject": f"{subject(contents, model, time_steps)} {fused}",
        "headlines": [_headline(contents, model, size, count) for size in tables.sizes_of(model)],
        "sizes": [_at(model, size) for size in tables.sizes_of(model)],
        "samples": _samples(count),
        "by_count": tables.by_count(contents),
        "seeds_note": _seeds_note(contents, model, count),
        "difference": _difference(contents, model, time_steps),
        "sweep": tables.sweep(contents),
        "sweep_count": counts_of(sweep[0])[0] if sweep else 0,
        "by_class": tables.by_class(model, classes),
        "mistakes": found,
        "matrix": _matrix(model, classes, found),
        "exhibits": {
            rank: [_shown(exhibit, count) for exhibit in members]
            for rank, members in groupby(exhibits, key=lambda exhibit: exhibit.rank)
        },
    }


def _headline(contents: Contents, model: Contents, size: str, count: int) -> dict[str, str]:
    """The mean IoU with the most samples at one size, with the paper's at as many."""
    number, paper = tables.percent_of(model, size, count), tables.paper_of(contents)
    ends = number is not None and number["low"] is not None
    return {
        "name": f"Mean IoU of {_samples(count)}, {_at(model, size)}",
        "better": "higher is better",
        "value": _NONE if number is None else f"{number['mean']:.2f} %",
        "range": f"[{number['low']:.2f}, {number['high']:.2f}]" if number is not None and ends else "",
        "beside": f"paper {paper[count]:.1f} %" if size == "network" and count in paper else "",
    }


def _samples(count: int) -> str:
    return "1 sample" if count == 1 else f"{count} samples"


def _at(model: Contents, size: str) -> str:
    """What a size is called."""
    height, width = model["network_size"]
    return f"{height} {_BY} {width}" if size == "network" else "original size"


def _seeds_note(contents: Contents, model: Contents, count: int) -> str:
    seeds = contents["settings"]["seeds"]
    if len(seeds) < 2:
        return ""
    measures = [tables.measure_of(model, size, count) for size in tables.sizes_of(model)]
    spread = " and ".join(f"{100 * m['standard_deviation_over_seeds']:.2f}" for m in measures if m is not None)
    return (
        f"The numbers are means over {len(seeds)} seeds; from seed to seed the mean IoU at n = {count} has a standard "
        f"deviation of {spread} percentage points."
    )


def _difference(contents: Contents, model: Contents, time_steps: int) -> str:
    """What to keep in mind when the numbers are compared with the paper's."""
    if not tables.paper_of(contents):
        return f"The paper reports no such numbers for {contents['dataset_file']} at {_at(model, 'network')}."
    return (
        f"The paper's numbers are of the 500 images of the validation split, at the network's size. Here samples take "
        f"{model['sampling']['steps'] or time_steps} steps, and {model['num_images']} images of the "
        f"{contents['settings']['dataset_split']} split are scored. The benchmark compares at the original size."
    )


def _matrix(model: Contents, classes: Classes, found: Sequence[tables.Mistake]) -> Picture:
    words = [f"{mistake.true} is taken for {mistake.predicted}: {mistake.percent:.0f} %" for mistake in found]
    caption = "Of the pixels of each true class, how many percent each class was predicted for, at the network's size; "
    caption += "a row without numbers is that of a class without pixels"
    figure = figures.confusion(tables.shares_of(model), classes.names)
    return as_svg(figure, f"Confusion matrix. {'; '.join(words)}", caption)


def _shown(exhibit: Exhibit, count: int) -> dict[str, Any]:
    miou, right = own_scores(exhibit.row, count)
    scores = f"mean IoU {100 * miou:.2f} %, {100 * right:.2f} % of the pixels right"
    name = exhibit.row["name"]
    return {"name": name, "scores": scores, "panel": [as_png(cell, name, _LONGEST_SIDE) for cell in exhibit.panel]}
