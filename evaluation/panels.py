"""Pictures of what was drawn, beside what the annotators drew."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, Normalize
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from datasets.loading import EvaluationBatch
from evaluation.predictors import Prediction
from metrics import predictive_entropy

_SIDE = 1.15  # inches
_INK = "#333333"


@dataclass(frozen=True)
class Cell:
    """One small picture of a panel.

    Attributes:
        title: what it shows.
        values: H x W numbers from 0 to `highest`, or H x W x 3 from 0 to 1; None where an annotator is absent.
        colours: the map from numbers to colours.
        highest: the number at the upper end of the colours.
    """

    title: str
    values: NDArray[Any] | None
    colours: Colormap
    highest: float = 1.0

    def pixels(self) -> NDArray[np.uint8]:
        """The picture as H x W x 3 bytes."""
        if self.values is None:
            raise ValueError(f"{self.title} is absent")
        if self.values.ndim == 3:
            return np.rint(self.values * 255).astype(np.uint8)
        scaled = np.ma.getdata(Normalize(0, self.highest)(self.values))
        return self.colours(scaled, bytes=True)[..., :3]


def sample_panel(batch: EvaluationBatch, prediction: Prediction, max_samples: int = 6) -> Figure:
    """One row an image: the image | its annotators | samples | mean of the samples | entropy of the mean, in bits."""
    rows = [panel_cells(batch, prediction, row, max_samples) for row in range(len(batch.images))]
    num_columns = len(rows[0])
    figure = Figure(figsize=(_SIDE * num_columns, _SIDE * len(rows) + 0.35), layout="constrained", facecolor="white")
    axes = figure.subplots(len(rows), num_columns, squeeze=False)
    for cells, places in zip(rows, axes, strict=True):
        for cell, place in zip(cells, places, strict=True):
            if cell.values is not None:
                place.imshow(cell.values, cmap=cell.colours, vmin=0, vmax=cell.highest, interpolation="nearest")
    _tidy(axes, [cell.title for cell in rows[0]])
    return figure


def panel_cells(batch: EvaluationBatch, prediction: Prediction, row: int, max_samples: int = 6) -> list[Cell]:
    """The pictures of one image of the batch, from left to right."""
    num_classes = prediction.probabilities.shape[1]
    annotators = enumerate(zip(batch.labels[row], batch.present[row], strict=True), start=1)
    samples = enumerate(prediction.labels[row][:max_samples], start=1)
    probabilities = prediction.probabilities[row]
    entropy = predictive_entropy(probabilities[None])[0] / np.log(2)
    return [
        image_cell(batch.images[row]),
        *(labels_cell(f"annotator {k}", map_ if present else None, num_classes) for k, (map_, present) in annotators),
        *(labels_cell(f"sample {k}", map_, num_classes) for k, map_ in samples),
        _mean_cell(probabilities),
        Cell("entropy", entropy.numpy(), matplotlib.colormaps["magma"], float(np.log2(num_classes))),
    ]


def image_cell(image: Tensor) -> Cell:
    """An image, its values stretched from black to white; of more than three channels the first three, of two one."""
    pixels = image.movedim(0, -1)[..., : 3 if len(image) >= 3 else 1].float()
    low, high = pixels.min(), pixels.max()
    pixels = (pixels - low) / (high - low).clamp(min=torch.finfo(torch.float32).tiny)
    return Cell("image", pixels.squeeze(-1).numpy(), matplotlib.colormaps["gray"])


def labels_cell(title: str, labels: Tensor | None, num_classes: int) -> Cell:
    """A label map, each class in its colour; two classes are black and white."""
    colours = matplotlib.colormaps["gray" if num_classes == 2 else "turbo"].resampled(num_classes)
    return Cell(title, None if labels is None else labels.numpy(), colours, num_classes - 1)


def _mean_cell(probabilities: Tensor) -> Cell:
    if len(probabilities) == 2:
        return Cell("mean", probabilities[1].numpy(), matplotlib.colormaps["gray"])
    return labels_cell("mode of mean", probabilities.argmax(0), len(probabilities))


def tidy(cell: Axes) -> None:
    """A thin frame and no ticks."""
    cell.set_xticks([])
    cell.set_yticks([])
    for spine in cell.spines.values():
        spine.set_color(_INK)
        spine.set_linewidth(0.5)


def _tidy(axes: Iterable[Iterable[Axes]], titles: Sequence[str]) -> None:
    for row, cells in enumerate(axes):
        for cell, title in zip(cells, titles, strict=True):
            tidy(cell)
            if row == 0:
                cell.set_title(title, fontsize=8, color=_INK)
