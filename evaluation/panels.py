"""Pictures of images, annotations and samples."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from datasets import AnnotatedDataset
from datasets.loading import EvaluationBatch, evaluation_batches
from datasets.normalisation import Normalisation
from evaluation.classes import ClassTable
from evaluation.predictors import Prediction, Predictor
from metrics import predictive_entropy

_SIDE = 1.15  # inches
_INK = "#333333"
_OTHER_STATE = 128
HEAT = "magma"
"""Name of the colour map of uncertainty."""


@dataclass(frozen=True)
class PanelImage:
    """One picture of a panel."""

    title: str
    values: NDArray[Any] | None  # H x W in 0 .. highest, or RGB in 0 .. 1, H x W x 3; None for an absent annotator
    colours: str = "gray"  # name of Matplotlib's map from values to colours
    highest: float = 1.0  # the value at the upper end of `colours`

    def pixels(self) -> NDArray[np.uint8]:
        """The picture as bytes, H x W x 3."""
        if self.values is None:
            raise ValueError(f"{self.title} is absent")
        if self.values.ndim == 3:
            return np.rint(self.values * 255).astype(np.uint8)
        scaled = np.ma.getdata(Normalize(0, self.highest)(self.values))
        return matplotlib.colormaps[self.colours](scaled, bytes=True)[..., :3]


def sample_panel(data: AnnotatedDataset, indices: Sequence[int], predictor: Predictor, max_samples: int = 6) -> Figure:
    """One row per image: the image, its annotations, samples, their mean and its entropy. Images may differ in size."""
    batches = evaluation_batches(data, list(indices), 1, workers=0)
    rows = [panel_images(data, batch, predictor(batch), max_samples) for batch in batches]
    numbers = [sum(picture.title.startswith("annotator") for picture in row) for row in rows]
    for row, number in zip(rows, numbers, strict=True):
        row[1 + number : 1 + number] = [PanelImage("", None)] * (max(numbers) - number)
    return panel_figure(rows)


def panel_figure(rows: Sequence[Sequence[PanelImage]]) -> Figure:
    """Rows of equally many pictures, with titles above the columns."""
    figure = Figure(figsize=(_SIDE * len(rows[0]), _SIDE * len(rows) + 0.35), layout="constrained", facecolor="white")
    axes = figure.subplots(len(rows), len(rows[0]), squeeze=False)
    for row, places in zip(rows, axes, strict=True):
        for picture, place in zip(row, places, strict=True):
            if picture.values is not None:
                show(place, picture)
            tidy(place)
    for column, place in enumerate(axes[0]):
        titles = [row[column].title for row in rows if row[column].title]
        place.set_title(titles[0], fontsize=8, color=_INK)
    return figure


def panel_images(
    data: AnnotatedDataset, batch: EvaluationBatch, prediction: Prediction, max_samples: int = 6
) -> list[PanelImage]:
    """The pictures of the only image of a batch, from left to right."""
    classes, probabilities = ClassTable.from_dataset(data), prediction.probabilities[0]
    return [
        *annotated_pictures(data, batch),
        *(labels_picture(f"sample {k}", map_, classes) for k, map_ in enumerate(prediction.labels[0][:max_samples], 1)),
        _mean_picture(probabilities, classes),
        entropy_picture(probabilities),
    ]


def annotated_pictures(data: AnnotatedDataset, batch: EvaluationBatch) -> list[PanelImage]:
    """The only image of a batch, and the label map of each of its annotators."""
    classes, maps = ClassTable.from_dataset(data), zip(batch.labels[0], batch.present[0], strict=True)
    return [
        dataset_picture(data, batch.images[0]),
        *(
            labels_picture(f"annotator {k}", map_ if there else None, classes)
            for k, (map_, there) in enumerate(maps, 1)
        ),
    ]


def dataset_picture(data: AnnotatedDataset, image: Tensor) -> PanelImage:
    """An image of a dataset, without its normalisation."""
    return image_picture(Normalisation.from_dataset(data).undo(image))


def image_picture(image: Tensor) -> PanelImage:
    """An image with its values stretched from black to white; only the first 3 of more channels, and the first of 2."""
    pixels = image.movedim(0, -1)[..., : 3 if len(image) >= 3 else 1].float()
    low, high = pixels.min(), pixels.max()
    pixels = (pixels - low) / (high - low).clamp(min=torch.finfo(torch.float32).tiny)
    return PanelImage("image", pixels.squeeze(-1).numpy())


def labels_picture(title: str, labels: Tensor | None, classes: ClassTable) -> PanelImage:
    """A label map (H x W) in the colours of its classes; other states of a process, such as a mask, are grey."""
    if labels is None:
        return PanelImage(title, None)
    palette = np.vstack([classes.colours, np.full(3, _OTHER_STATE)])
    return PanelImage(title, palette[labels.clamp(max=len(classes)).numpy(force=True)] / 255)


def entropy_picture(probabilities: Tensor) -> PanelImage:
    """Entropy in bits of class probabilities, C x H x W."""
    entropy = predictive_entropy(probabilities[None])[0] / np.log(2)
    return PanelImage("entropy", entropy.numpy(force=True), HEAT, max(1.0, float(np.log2(len(probabilities)))))


def show(place: Axes, picture: PanelImage) -> Any:
    """Draw a picture pixel by pixel; returns what a colour bar needs."""
    return place.imshow(
        np.asarray(picture.values), cmap=picture.colours, vmin=0, vmax=picture.highest, interpolation="nearest"
    )


def tidy(place: Axes) -> None:
    """A thin frame and no ticks."""
    place.set_xticks([])
    place.set_yticks([])
    for spine in place.spines.values():
        spine.set_color(_INK)
        spine.set_linewidth(0.5)


def _mean_picture(probabilities: Tensor, classes: ClassTable) -> PanelImage:
    if len(probabilities) == 2:
        return PanelImage("mean probability", probabilities[1].numpy(force=True))
    return labels_picture("most probable", probabilities.argmax(0), classes)
