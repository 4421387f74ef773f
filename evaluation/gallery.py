"""The images that a report shows: the best, the median and the worst of an evaluation, drawn again."""

from dataclasses import dataclass

import torch
from torch import Tensor

from datasets import AnnotatedDataset
from datasets.loading import EvaluationBatch, evaluation_batches
from evaluation.cache import Row
from evaluation.panels import Cell, image_cell, labels_cell, panel_cells
from evaluation.predictors import model_samples
from evaluation.scores import Scores
from models import CCDM
from utils.schema import EvalSettings

_FRAMES = 8


@dataclass(frozen=True)
class Exhibit:
    """One image, with what was drawn for it.

    Attributes:
        rank: "best", "median" or "worst".
        row: the image's row of scores.
        panel: the image, its annotators, what was drawn for it, and the entropy of that.
        film: the image, then the label map of the first sample from T to 0; empty where no film was made.
    """

    rank: str
    row: Row
    panel: list[Cell]
    film: list[Cell]


def gallery(model: CCDM, data: AnnotatedDataset, settings: EvalSettings, scores: Scores) -> list[Exhibit]:
    """About `n_validation_images` images with the samples that were scored, the first of each rank with its film.

    Images are drawn one by one, since their sizes may differ; noise is keyed, so the samples are those of the scores
    (of the first seed), but for what another batch does to the rounding of the network.
    """
    exhibits: list[Exhibit] = []
    for rank, rows in ranked(scores, settings.n_validation_images).items():
        for place, row in enumerate(rows):
            (batch,) = evaluation_batches(data, [row["index"]], 1, workers=0)
            film = film_strip(model, batch, settings) if place == 0 and not model.is_classifier else []
            exhibits.append(Exhibit(rank, row, _panel(model, batch, settings), film))
    return exhibits


def ranked(scores: Scores, number: int) -> dict[str, list[Row]]:
    """The images of the lowest, the middle and the highest GED, see `by_rank`."""
    values = scores.values("ged", scores.counts[-1])
    return by_rank([scores.rows[index] for index in values.argsort(kind="stable")], number)


def by_rank(rows: list[Row], number: int) -> dict[str, list[Row]]:
    """The first, the middle and the last of rows that are sorted, a third of `number` each but at least one.

    No image comes twice: of few images the best go first, then the worst.
    """
    if number == 0:
        return {}
    each = max(1, number // 3)
    best, rest = rows[:each], rows[each:]
    worst, rest = rest[::-1][:each], rest[: max(0, len(rest) - each)]
    start = max(0, (len(rest) - each) // 2)
    chosen = {"best": best, "median": rest[start : start + each], "worst": worst}
    return {rank: some for rank, some in chosen.items() if some}


def film_strip(model: CCDM, batch: EvaluationBatch, settings: EvalSettings) -> list[Cell]:
    """The reverse process of one image's first sample: the image, about eight label maps from t = T, and the last."""
    chain = _chain(model, batch.images, settings)
    chosen = evenly(len(chain), _FRAMES + 1)
    cells = [image_cell(batch.images[0])]
    for place in chosen:
        time, labels = chain[place]
        title = "sample 1" if time == 0 and settings.sampling.last_step == "argmax" else f"t = {time}"
        cells.append(labels_cell(title, labels[0].cpu(), model.process.num_classes))
    return cells


def evenly(length: int, number: int) -> list[int]:
    """At most `number` of 0 .. length - 1, evenly spaced, first and last among them.

    >>> evenly(11, 3), evenly(2, 5)
    ([0, 5, 10], [0, 1])
    """
    number = min(length, number)
    return [round(place * (length - 1) / max(1, number - 1)) for place in range(number)]


def _chain(model: CCDM, images: Tensor, settings: EvalSettings) -> list[tuple[int, Tensor]]:
    """Times and label maps of `CCDM.trajectory`, before them x_T, which is what the network sees first."""
    sampling, device = settings.sampling, model.process.alpha_bar.device
    seen: list[Tensor] = []

    def remember(_: torch.nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if not seen:
            seen.append(inputs[0].clone())

    watch = model.register_forward_pre_hook(remember)
    try:
        steps = list(
            model.trajectory(images.to(device), sampling.steps, sampling.sampler, settings.seeds[0], eta=sampling.eta)
        )
    finally:
        watch.remove()
    return [(model.process.time_steps, seen[0]), *((step.s, step.x_s) for step in steps)]


def _panel(model: CCDM, batch: EvaluationBatch, settings: EvalSettings) -> list[Cell]:
    draw = model_samples(
        model, max(settings.evaluations), settings.sampling, settings.seeds[0], settings.max_batch_size
    )
    return panel_cells(batch, draw(batch), row=0)
