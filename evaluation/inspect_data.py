"""Print and draw what a dataset holds: python -m evaluation.inspect_data dataset_file=MODULE [key=value ...]

    dataset_file=MODULE dataset_params.NAME=VALUE    the dataset, as for ddpm_train.py
    splits=[train,val,test]                          the splits to read
    out=data.png                                     some images of every split, with their label maps

All images are read, and checked as in training. A split that cannot be read ends with status 2 after the others.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import numpy as np
import torch
from matplotlib.figure import Figure
from pydantic import Field
from tqdm import tqdm

from datasets import AnnotatedDataset, load_dataset
from datasets.contract import SPLITS
from datasets.loading import evaluation_batches, evenly_spaced_indices
from datasets.normalisation import Normalisation
from evaluation.classes import ClassTable
from evaluation.evaluate import task_of, void_class
from evaluation.image_metrics import Comparison, check_annotated
from evaluation.panels import PanelImage, annotated_pictures, panel_figure
from evaluation.predictors import always_empty, majority_vote
from evaluation.tables import DASH
from metrics import ged_from
from utils.config import AsList, Config
from utils.errors import UserError, os_errors_as_user_error, run_script
from utils.paths import expand_path, write_atomically
from utils.settings import settings_from_arguments
from utils.text import visible

_IMAGES_PER_SPLIT, _NAME_LENGTH = 4, 25
_YELLOW = np.array([1, 0.8, 0])


class InspectionSettings(Config):
    """What is inspected."""

    dataset_file: str
    dataset_params: dict[str, Any] = Field({})
    splits: Annotated[list[str], AsList] = Field(list(SPLITS), min_length=1)
    out: str = "data.png"


def main(argv: Sequence[str]) -> None:
    """Inspect as the command line says. Raises UserError for what the user can fix, after all splits."""
    settings = settings_from_arguments(InspectionSettings, argv)
    out, problems = expand_path(settings.out), []
    splits: dict[str, AnnotatedDataset] = {}
    lines: dict[str, dict[str, str]] = {}
    with os_errors_as_user_error(settings.dataset_file):
        for split in settings.splits:
            try:
                data = load_dataset(settings.dataset_file, split, settings.dataset_params)
                lines[split] = describe(data, split)
                splits[split] = data
            except UserError as error:
                problems.append(str(error))
        if splits:
            print(visible(as_text(lines)))
            figure = draw(splits)
            write_atomically(out, lambda temporary: figure.savefig(temporary, format="png", dpi=150))
            print(visible(f"\npictures in {out}"))
    if problems:
        raise UserError("\n".join(dict.fromkeys(problems)))


def describe(data: AnnotatedDataset, title: str | None = None) -> dict[str, str]:
    """What a split holds, line by line; `title` is that of the progress bar. Raises UserError for an item that violates
    the contract of datasets, or has no annotations."""
    names, normalisation = ClassTable.from_dataset(data).names, Normalisation.from_dataset(data)
    void, task = void_class(data), task_of(data)
    predictors = {"an empty map": always_empty(data.num_classes), "the majority": majority_vote(data.num_classes)}
    geds: dict[str, list[float]] = {name: [] for name in predictors}
    groups, sizes, annotators, ious, num_empty = set[int](), Counter[str](), Counter[int](), list[float](), 0
    pixels, ends = torch.zeros(data.num_classes, dtype=torch.int64), list[float]()
    for batch in tqdm(evaluation_batches(data, list(range(len(data))), 1, workers=0), desc=title, leave=False):
        labels, intensities = batch.labels[0], normalisation.undo(batch.images[0])
        groups.update(batch.groups)
        sizes["{} x {}".format(*labels.shape[1:])] += 1
        annotators[len(labels)] += 1
        num_empty += int((labels.eq(0) | labels.eq(-1 if void is None else void)).flatten(1).all(1).sum())
        pixels += labels.flatten().bincount(minlength=data.num_classes)
        ends += [float(intensities.min()), float(intensities.max())]
        if void is not None:
            check_annotated(batch, void, task)
        if task == "distribution":
            for name, predictor in predictors.items():
                pairs = Comparison(batch, predictor(batch), data.num_classes, void).pairs
                geds[name].append(float(ged_from(pairs).ged))
            if (n := len(labels)) > 1:
                ious.append(float(pairs.label_label.sum() - n) / (n * (n - 1)))  # without a map and itself
    shares = [f"{100 * share:.2f} %" for share in (pixels / pixels.sum()).tolist()]
    return {
        "images": str(len(data)),
        "groups, such as patients": str(len(groups)),
        "height x width": _counts(sizes),
        "channels": str(data.image_channels),
        "intensities": f"{min(ends):.2f} .. {max(ends):.2f}",
        "annotators per image": _counts(annotators),
        "empty label maps": f"{100 * num_empty / sum(n * count for n, count in annotators.items()):.1f} %",
        **{f"pixels of class {name}": share for name, share in zip(names, shares, strict=True)},
        "IoU of two annotators": _mean(ious),
        **{f"GED of {name}": _mean(values) for name, values in geds.items()},
    }


def as_text(splits: Mapping[str, Mapping[str, str]]) -> str:
    """The lines of all splits side by side."""
    names = list(dict.fromkeys(name for lines in splits.values() for name in lines))
    rows = [["", *splits], *([name, *(lines.get(name, DASH) for lines in splits.values())] for name in names)]
    first, *others = (max(map(len, column)) for column in zip(*rows, strict=True))
    form = "  ".join([f"{{:<{first}}}", *(f"{{:>{width}}}" for width in others)])
    return "\n".join(form.format(*row) for row in rows)


def draw(splits: Mapping[str, AnnotatedDataset]) -> Figure:
    """Some images of every split: the image, the same with its label maps laid over it, and the label maps."""
    rows, names = [], []
    for split, data in splits.items():
        for batch in evaluation_batches(data, evenly_spaced_indices(len(data), _IMAGES_PER_SPLIT), 1, workers=0):
            image, *maps = annotated_pictures(data, batch)
            drawn = (batch.labels[0] != (void_class(data) or 0))[..., None].numpy()  # all but background or void
            colours = np.mean([map_.values * part for map_, part in zip(maps, drawn, strict=True)], axis=0)
            if data.num_classes == 2:
                colours = colours * _YELLOW  # instead of white
            overlay = (1 - drawn.mean(0) / 2) * image.pixels() / 255 + colours / 2
            rows.append([image, PanelImage("labels on image", overlay), *maps])
            name = batch.names[0] if batch.names[0].startswith(f"{split}/") else f"{split}/{batch.names[0]}"
            names.append("".join(sign if sign.isprintable() else "?" for sign in name[-_NAME_LENGTH:]))
    columns = max(map(len, rows))
    figure = panel_figure([row + [PanelImage("", None)] * (columns - len(row)) for row in rows])
    for place, name in zip(figure.axes[::columns], names, strict=True):
        place.set_ylabel(name, fontsize=6, parse_math=False)
    return figure


def _counts(values: Counter[str] | Counter[int]) -> str:
    """The most frequent values, with their frequencies if there are several."""
    if len(values) == 1:
        return str(next(iter(values)))
    return ", ".join([f"{value} ({count})" for value, count in values.most_common(3)] + ["..."] * (len(values) > 3))


def _mean(values: Sequence[float]) -> str:
    return f"{np.mean(values):.3f}" if values else DASH


if __name__ == "__main__":
    run_script(main, __doc__)
