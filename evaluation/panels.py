"""Pictures of what was drawn, beside what the annotators drew."""

from collections.abc import Iterable, Sequence

import matplotlib
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from datasets.loading import EvaluationBatch
from evaluation.predictors import Prediction
from utils.metrics import predictive_entropy

_CELL = 1.15  # inches
_INK = "#333333"


def sample_panel(batch: EvaluationBatch, prediction: Prediction, max_samples: int = 6) -> Figure:
    """One row an image: the image | its annotators | samples | mean of the samples | entropy of the mean, in bits."""
    num_classes = prediction.probabilities.shape[1]
    num_annotators = batch.labels.shape[1]
    num_samples = min(max_samples, prediction.labels.shape[1])
    titles = [
        "image",
        *_numbered("annotator", num_annotators),
        *_numbered("sample", num_samples),
        "mean" if num_classes == 2 else "mode of mean",
        "entropy",
    ]
    num_rows = len(batch.images)
    figure = Figure(figsize=(_CELL * len(titles), _CELL * num_rows + 0.35), layout="constrained", facecolor="white")
    axes = figure.subplots(num_rows, len(titles), squeeze=False)
    for row in range(num_rows):
        cells = iter(axes[row])
        _draw_image(next(cells), batch.images[row])
        for annotator in range(num_annotators):
            cell = next(cells)
            if batch.present[row, annotator]:
                _draw_labels(cell, batch.labels[row, annotator], num_classes)
        for sample in range(num_samples):
            _draw_labels(next(cells), prediction.labels[row, sample], num_classes)
        probabilities = prediction.probabilities[row]
        if num_classes == 2:
            next(cells).imshow(probabilities[1], cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        else:
            _draw_labels(next(cells), probabilities.argmax(0), num_classes)
        entropy = predictive_entropy(probabilities[None])[0] / np.log(2)
        next(cells).imshow(entropy, cmap="magma", vmin=0, vmax=np.log2(num_classes), interpolation="nearest")
    _tidy(axes, titles)
    return figure


def _draw_image(cell: Axes, image: Tensor) -> None:
    pixels = image.movedim(0, -1)[..., : 3 if len(image) >= 3 else 1].float()
    low, high = pixels.min(), pixels.max()
    pixels = (pixels - low) / (high - low).clamp(min=torch.finfo(torch.float32).tiny)
    cell.imshow(pixels.squeeze(-1), cmap="gray", vmin=0, vmax=1, interpolation="nearest")


def _draw_labels(cell: Axes, labels: Tensor, num_classes: int) -> None:
    colours = "gray" if num_classes == 2 else matplotlib.colormaps["turbo"].resampled(num_classes)
    cell.imshow(labels, cmap=colours, vmin=0, vmax=num_classes - 1, interpolation="nearest")


def _numbered(word: str, count: int) -> list[str]:
    return [f"{word} {number}" for number in range(1, count + 1)]


def _tidy(axes: Iterable[Iterable[Axes]], titles: Sequence[str]) -> None:
    for row, cells in enumerate(axes):
        for cell, title in zip(cells, titles, strict=True):
            cell.set_xticks([])
            cell.set_yticks([])
            for spine in cell.spines.values():
                spine.set_color(_INK)
                spine.set_linewidth(0.5)
            if row == 0:
                cell.set_title(title, fontsize=8, color=_INK)
