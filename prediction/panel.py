"""One picture that shows what the samples of an image agree on and where they differ."""

import io

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from torch import Tensor

from checkpoints.preprocessing import Preprocessing
from evaluation.panels import Cell, image_cell, tidy
from models import Samples
from prediction.classes import ClassTable
from prediction.summary import Summary

_COLUMNS = 5
_SIDE = 2.0  # inches of a square cell; others have the same area
_INK = "#333333"
_OUTLINE = "#ffd000"


class Panel(Figure):
    """A figure that notebooks show by themselves."""

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png")
        return buffer.getvalue()


def panel(
    image: Tensor,
    drawn: Samples,
    classes: Preprocessing | ClassTable | None = None,
    max_samples: int = 10,
    row: int = 0,
) -> Figure:
    """The image, the samples' outlines on it, their majority, mean probability and entropy; below, samples.

    With more than two classes, the majority laid over the image and a key of the classes that occur take the places of
    the outlines and the mean probability.

    Args:
        image: B x channels x H x W, as the network saw it.
        drawn: the samples of these images.
        classes: names and colours.
        max_samples: samples that are shown.
        row: which of the images.
    """
    if not isinstance(classes, ClassTable):
        classes = ClassTable.of(drawn.probabilities.shape[1], classes)
    summary, shown = Summary.of(drawn, row), drawn.labels.shape[1]
    lines = 1 + -(-min(shown, max_samples) // _COLUMNS)
    height, width = image.shape[-2:]
    stretch = float(np.clip(np.sqrt(height / width), 0.5, 2))
    figure = Panel(
        figsize=(_COLUMNS * _SIDE / stretch, lines * (_SIDE * stretch + 0.25) + 0.25),
        layout="constrained", facecolor="white", dpi=150,
    )  # fmt: skip
    axes = figure.subplots(lines, _COLUMNS, squeeze=False)
    _draw_top(axes[0], image[row].cpu(), summary, classes)
    for place, cell in enumerate(_sample_cells(summary, classes, max_samples)):
        _draw(axes.flat[_COLUMNS + place], cell)
    for place in axes.flat:
        tidy(place)
        place.set_visible(place.has_data() or place.get_legend() is not None)
    return figure


def _draw_top(places: list[Axes], image: Tensor, summary: Summary, classes: ClassTable) -> None:
    pixels, majority = image_cell(image), summary.majority(classes.void).numpy()
    num_classes = len(summary.probabilities)
    _draw(places[0], pixels)
    if num_classes == 2:
        _draw(places[1], Cell(f"outlines of {len(summary.samples)} samples", pixels.values, pixels.colours))
        _draw_outlines(places[1], summary.samples)
        _draw(places[3], Cell("mean probability", summary.probabilities[1].numpy(), matplotlib.colormaps["gray"]), True)
    else:
        _draw(places[1], Cell("majority on image", _mixed(pixels, classes.colours[majority]), pixels.colours))
        _draw_key(places[3], majority, classes)
    _draw(places[2], Cell("majority", classes.colours[majority] / 255, pixels.colours))
    entropy = summary.entropy.numpy()
    most = max(1.0, float(entropy.max()))  # where there are many classes, log2 C is hardly ever reached
    _draw(places[4], Cell("entropy in bits", entropy, matplotlib.colormaps["magma"], most), True)


def _sample_cells(summary: Summary, classes: ClassTable, most: int) -> list[Cell]:
    colours = matplotlib.colormaps["gray"]
    return [
        Cell(f"sample {number}", classes.colours[sample] / 255, colours)
        for number, sample in enumerate(summary.samples[:most].numpy(), start=1)
    ]


def _draw(place: Axes, cell: Cell, bar: bool = False) -> None:
    """A picture with its title and, if wanted, a bar of its colours."""
    shown = place.imshow(np.asarray(cell.values), cmap=cell.colours, vmin=0, vmax=cell.highest, interpolation="nearest")
    place.set_title(cell.title, fontsize=8, color=_INK)
    if bar:
        scale = place.figure.colorbar(shown, cax=place.inset_axes((0, -0.07, 1, 0.04)), orientation="horizontal")
        scale.set_ticks([0, cell.highest], labels=["0", f"{cell.highest:.3g}"])
        scale.ax.tick_params(labelsize=6, length=0, pad=1, colors=_INK)
        scale.outline.set_visible(False)


def _draw_outlines(place: Axes, samples: Tensor) -> None:
    """The border of class 1 in every sample, fainter the more samples there are."""
    for sample in samples.numpy():
        if sample.any() and not sample.all():
            strength = max(0.4, len(samples) ** -0.5)
            place.contour(sample, levels=[0.5], colors=_OUTLINE, linewidths=1.0, alpha=strength)


def _draw_key(place: Axes, majority: np.ndarray, classes: ClassTable) -> None:
    there, counts = np.unique(majority, return_counts=True)
    common = there[np.argsort(-counts)][:20]
    patches = [
        Patch(facecolor=classes.colours[label] / 255, edgecolor=_INK, label=classes.names[label]) for label in common
    ]
    place.legend(handles=patches, fontsize=6, loc="center", frameon=False, ncols=1 if len(patches) <= 10 else 2)
    place.set_axis_off()


def _mixed(pixels: Cell, colours: np.ndarray) -> np.ndarray:
    values = np.asarray(pixels.values)
    grey = values if values.ndim == 3 else values[..., None].repeat(3, axis=-1)
    return 0.5 * grey + 0.5 * colours / 255
