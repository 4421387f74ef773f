"""The images that a report shows: the best, the median and the worst, sampled again."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from datasets.loading import EvaluationBatch, evaluation_batches
from evaluation.classes import ClassTable, write_png
from evaluation.evaluate import Evaluation
from evaluation.panels import PanelImage, dataset_picture, entropy_picture, labels_picture, panel_images
from evaluation.predictors import fused_label_map, fused_samples, model_samples
from evaluation.results import Result

FOLDER = "examples"
_FRAMES = 8
_CORRECT, _WRONG, _VOID = (255, 255, 255), (213, 94, 0), (150, 156, 163)


def write_examples(evaluation: Evaluation, result: Result, folder: Path) -> list[dict[str, Any]]:
    """Sample about `n_validation_images` images again and write their pictures below `folder`; earlier ones go.

    Images are sampled one by one, because they may differ in size. The noise is that of the scored samples of the first
    seed, so that they are the same up to the rounding of the network. Raises UserError if a file cannot be written.

    Returns the entry `examples` of `results.json`: rank, name and scores of each image, and titles and files of its
    pictures; for the first image of each rank, also of its reverse process.
    """
    entries: list[dict[str, Any]] = []
    for path in (folder / FOLDER).glob("[0-9][0-9]*_*.png"):  # of an earlier evaluation
        path.unlink()
    for rank, places in ranked(result, evaluation.settings.n_validation_images).items():
        for place in places:
            image, is_first = result.images[place], place == places[0]
            (batch,) = evaluation_batches(evaluation.data, [image.index], 1, workers=0)
            pictures = {
                "panel": _panel(evaluation, batch),
                "trajectory": trajectory(evaluation, batch) if is_first and not evaluation.is_classifier else [],
            }
            prefix = f"{FOLDER}/{len(entries) + 1:02d}"
            files = {kind: _save(folder, f"{prefix}_{kind}", some) for kind, some in pictures.items()}
            entries.append({"rank": rank, "name": image.name, "scores": _scores(result, place), **files})
    return entries


def ranked(result: Result, number: int) -> dict[str, list[int]]:
    """Positions of the best, median and worst images by the first headline metric, a third of `number` each.

    Every rank has at least one image if there are enough, and no image has two ranks.
    """
    name, better = result.headline_metrics[0]
    values = result.values(name, result.num_samples[-1])
    order = [place for place in np.argsort(-better * values, kind="stable").tolist() if not np.isnan(values[place])]
    each = max(1, number // 3) if number else 0
    best, rest = order[:each], order[each:]
    worst, rest = rest[::-1][:each], rest[: max(0, len(rest) - each)]
    start = max(0, (len(rest) - each) // 2)
    chosen = {"best": best, "median": rest[start : start + each], "worst": worst}
    return {rank: places for rank, places in chosen.items() if places}


def trajectory(evaluation: Evaluation, batch: EvaluationBatch) -> list[PanelImage]:
    """The reverse process of an image's first sample: the image, then at most nine label maps from t = T to 0."""
    steps = list(evaluation.model.trajectory(batch.images, evaluation.sampling, evaluation.settings.seeds[0]))
    chosen = [steps[round(place)] for place in np.linspace(0, len(steps) - 1, min(_FRAMES + 1, len(steps)))]
    titled = [("sample 1" if t == 0 else f"t = {t}", labels[0]) for t, labels in chosen]
    frames = [labels_picture(title, labels, evaluation.classes) for title, labels in titled]
    return [dataset_picture(evaluation.data, batch.images[0]), *frames]


def segmentation_images(fused: Tensor, truth: Tensor, classes: ClassTable) -> list[PanelImage]:
    """The label map, the prediction, where they differ, and the entropy of the fused map.

    Args:
        fused: C x H x W, see `evaluation.predictors.fuse`.
        truth: H x W.
        classes: with a void class.
    """
    prediction = fused_label_map(fused, truth.shape)
    outcome = (prediction != truth).long().masked_fill(truth.eq(-1 if classes.void is None else classes.void), 2)
    probabilities = fused[classes.evaluated]
    return [
        labels_picture("label map", truth, classes),
        labels_picture("prediction", prediction, classes),
        PanelImage("differences", np.array([_CORRECT, _WRONG, _VOID])[outcome.numpy()] / 255),
        entropy_picture(probabilities / probabilities.sum(0).clamp(min=torch.finfo(fused.dtype).tiny)),
    ]


def _panel(evaluation: Evaluation, batch: EvaluationBatch) -> list[PanelImage]:
    model, classes, settings, n = evaluation.model, evaluation.classes, evaluation.settings, evaluation.num_samples[-1]
    options = evaluation.sampling, settings.seeds[0], settings.max_batch_size
    if evaluation.task == "distribution":
        return panel_images(evaluation.data, batch, model_samples(model, n, *options)(batch))
    fuser = fused_samples(model, [n], *options, void=classes.void, strategy=settings.evaluation_vote_strategy)
    pictures = segmentation_images(fuser(batch).maps[0, 0].cpu(), batch.labels[0, 0], classes)
    return [dataset_picture(evaluation.data, batch.images[0]), *pictures]


def _save(folder: Path, prefix: str, pictures: Sequence[PanelImage]) -> list[dict[str, str | None]]:
    """Write pictures; those of absent annotators have no file."""
    entries: list[dict[str, str | None]] = []
    for place, picture in enumerate(pictures):
        file = None if picture.values is None else f"{prefix}_{place:02d}.png"
        if file is not None:
            write_png(folder / file, picture.pixels())
        entries.append({"title": picture.title, "file": file})
    return entries


def _scores(result: Result, place: int) -> dict[str, float]:
    """The headline metrics of one image and, for a segmentation, the share of correct pixels."""
    n = result.num_samples[-1]
    scores = {name: float(result.values(name, n)[place]) for name, _ in result.headline_metrics}
    if result.task == "segmentation":
        matrix = result.statistics("miou", n)[:, place].sum(0)
        scores["accuracy"] = float(matrix.trace() / matrix.sum())
    return scores
