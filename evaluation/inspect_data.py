"""Show how a dataset was understood, before training on it: python -m evaluation.inspect_data [key=value ...]

    python -m evaluation.inspect_data dataset_file=datasets.folder dataset_params.path=mine

Prints sizes, classes, raters, empty label maps, agreement of the raters, and the GED of what needs no model for each
split, and draws some images with their label maps.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from pydantic import Field
from tqdm import tqdm

from datasets import AnnotatedDataset, load_dataset
from datasets.contract import SPLITS
from datasets.loading import EvaluationBatch, evaluation_batches, evenly_spaced_indices
from evaluation.classes import ClassTable
from evaluation.evaluate import void_class
from evaluation.image_metrics import Comparison
from evaluation.panels import PanelImage, dataset_picture, entropy_picture, labels_picture, panel_figure
from evaluation.predictors import always_empty, majority_vote
from metrics import ged_from
from utils.config import Config, Positive
from utils.errors import UserError, run_script
from utils.paths import expand_path, write_atomically
from utils.settings import load_settings

_PICTURES = 6


class InspectSettings(Config):
    """The settings of this script."""

    dataset_file: str = Field("datasets.folder", description="module of the dataset")
    dataset_params: dict[str, Any] = Field({}, description="arguments of its get_dataset")
    max_images: Positive | None = Field(500, description="images of each split that are read; `null`: all")
    out: str = Field("data.png", description="the picture")


def main(argv: Sequence[str]) -> None:
    """Inspect the splits that exist. Raises UserError if none does, and for what is wrong with the data."""
    settings = load_settings(InspectSettings, argv, default_file=None)
    first: AnnotatedDataset | None = None
    problems = []
    for split in SPLITS:
        try:
            data = load_dataset(settings.dataset_file, split, settings.dataset_params)
        except UserError as error:
            problems.append(f"{split}: {error}")
            continue
        print("\n".join(describe(data, split, evenly_spaced_indices(len(data), settings.max_images))))
        first = first or data
    for problem in problems:
        print(problem)
    if first is None:
        raise UserError("no split can be read")
    out = expand_path(settings.out)
    write_atomically(out, lambda path: draw(first).savefig(path, format="png", dpi=150))
    print(f"pictures in {out}")


def describe(data: AnnotatedDataset, split: str, indices: list[int]) -> list[str]:
    """Lines about a split, from the images of these indices."""
    classes, void = ClassTable.from_dataset(data), void_class(data)
    sizes: Counter[tuple[int, ...]] = Counter()
    raters: Counter[int] = Counter()
    pixels = torch.zeros(data.num_classes, dtype=torch.int64)
    empty, low, high = 0, torch.inf, -torch.inf
    scores: dict[str, list[float]] = {"IoU": [], "always empty": [], "majority vote": []}
    for batch in tqdm(evaluation_batches(data, indices, 1, workers=0), split, leave=False, disable=None):
        labels = batch.labels[0][batch.present[0]]
        sizes[tuple(batch.images.shape[-2:])] += 1
        raters[len(labels)] += 1
        pixels += labels.flatten().long().bincount(minlength=data.num_classes)
        empty += int((labels.flatten(1) == 0).all(1).sum())
        low, high = min(low, float(batch.images.min())), max(high, float(batch.images.max()))
        if len(labels) > 1:
            for name, value in agreement(batch, data.num_classes, void).items():
                scores[name].append(value)
    shares = (100 * pixels / pixels.sum()).tolist()
    lines = [
        f"{split}: {len(data)} images" + ("" if len(indices) == len(data) else f", of which {len(indices)} were read"),
        f"  height x width        {_counted({f'{h} x {w}': count for (h, w), count in sizes.items()})}",
        f"  channels, values      {data.image_channels}, {low:.3g} to {high:.3g}",
        f"  raters per image      {_counted(raters)}",
        f"  classes, % of pixels  {', '.join(f'{n}: {s:.3g}' for n, s in zip(classes.names, shares, strict=True))}",
        f"  empty label maps      {empty} of {sum(n * count for n, count in raters.items())}",
    ]
    if scores["IoU"]:
        iou, nothing, majority = (sum(values) / len(values) for values in scores.values())
        lines.append(f"  IoU of two raters     {iou:.3f} (of empty ones: 1)")
        lines.append(f"  GED                   {nothing:.3f} always empty, {majority:.3f} majority vote")
    return lines


def agreement(batch: EvaluationBatch, num_classes: int, void: int | None) -> dict[str, float]:
    """Mean IoU of two different raters of the only image of a batch, and the GED of predictors without a model."""
    found: dict[str, float] = {}
    for name, predictor in (("always empty", always_empty(num_classes)), ("majority vote", majority_vote(num_classes))):
        pairs = Comparison(batch, predictor(batch), num_classes, void).pairs
        found[name] = float(ged_from(pairs).ged[0])
    number = int(batch.present.sum())
    iou = pairs.label_label[0][batch.present[0]][:, batch.present[0]]
    return {"IoU": float((iou.sum() - iou.trace()) / (number * (number - 1))), **found}


def draw(data: AnnotatedDataset) -> Any:
    """Some images with their label maps and the entropy of the raters, a row for each."""
    classes = ClassTable.from_dataset(data)
    rows = []
    for batch in evaluation_batches(data, evenly_spaced_indices(len(data), _PICTURES), 1, workers=0):
        labels = batch.labels[0][batch.present[0]]
        maps = [labels_picture(f"rater {number}", map_, classes) for number, map_ in enumerate(labels[:8], start=1)]
        frequencies = torch.stack([(labels == label).float().mean(0) for label in range(data.num_classes)])
        rows.append([dataset_picture(data, batch.images[0]), *maps, entropy_picture(frequencies)])
    longest = max(len(row) for row in rows)
    return panel_figure([[*row[:-1], *[PanelImage("", None)] * (longest - len(row)), row[-1]] for row in rows])


def _counted(numbers: Any) -> str:
    """The values and how often they occur, the most frequent first.

    >>> _counted({4: 10, 3: 2}), _counted({"8 x 8": 5})
    ('4 (10 images), 3 (2)', '8 x 8')
    """
    ordered = sorted(numbers.items(), key=lambda item: -item[1])
    if len(ordered) == 1:
        return str(ordered[0][0])
    texts = [f"{value} ({count}{' images' if place == 0 else ''})" for place, (value, count) in enumerate(ordered[:6])]
    return ", ".join(texts) + (", ..." if len(ordered) > 6 else "")


if __name__ == "__main__":
    run_script(main, __doc__)
