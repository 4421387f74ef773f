"""One figure that shows what the samples of an image have in common and where they differ."""

import io
import math

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from torch import Tensor

from checkpoints.preprocessing import Preprocessing
from evaluation.classes import ClassTable
from evaluation.panels import HEAT, PanelImage, image_picture, labels_picture, show, tidy
from models import Samples
from prediction.summary import Summary

_COLUMNS = 5
_SIDE = 2.0  # inches of a square picture; others have the same area
_MAX_PIXELS_OF_SIDE = 600  # of a picture; larger images are drawn from every k-th pixel
_INK = "#333333"
_OUTLINE = "#ffd000"


class Panel(Figure):
    """A figure that notebooks display."""

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png")
        return buffer.getvalue()


def panel(
    image: Tensor,
    samples: Samples,
    classes: Preprocessing | ClassTable | None = None,
    max_samples: int = 10,
    row: int = 0,
) -> Panel:
    """Draw the image, the outlines of all samples, their majority, mean probability and entropy, and some samples.

    With more than two classes, the majority overlaid on the image and a legend replace outlines and mean probability.
    Of large images, only every k-th pixel is drawn.

    Args:
        image: B x channels x H x W, as given to the network.
        samples: the samples of these images.
        classes: names and colours of the classes.
        max_samples: how many samples are shown.
        row: which of the B images.
    """
    step = math.ceil(max(image.shape[-2:]) / _MAX_PIXELS_OF_SIDE)
    image, labels, probabilities = (x[row, ..., ::step, ::step] for x in (image, samples.labels, samples.probabilities))
    summary = Summary(labels.cpu(), probabilities.float().cpu())
    if not isinstance(classes, ClassTable):
        classes = ClassTable.from_preprocessing(len(summary.probabilities), classes)
    shown = summary.samples[:max_samples]
    rows = 1 + math.ceil(len(shown) / _COLUMNS)
    height, width = image.shape[-2:]
    stretch = min(max(math.sqrt(height / width), 0.5), 2)
    figure = Panel(
        figsize=(_COLUMNS * _SIDE / stretch, rows * (_SIDE * stretch + 0.25) + 0.25),
        layout="constrained", facecolor="white", dpi=150,
    )  # fmt: skip
    places = list(figure.subplots(rows, _COLUMNS, squeeze=False).flat)
    _draw_top(places, image_picture(image.cpu()), summary, classes)
    for number, (place, sample) in enumerate(zip(places[_COLUMNS:], shown, strict=False), start=1):
        _draw(place, labels_picture(f"sample {number}", sample, classes))
    for place in places:
        tidy(place)
        place.set_visible(place.has_data() or place.get_legend() is not None)
    return figure


def _draw_top(places: list[Axes], image: PanelImage, summary: Summary, classes: ClassTable) -> None:
    """The first row: two pictures of the image, then the majority, probability or legend, and entropy."""
    majority = labels_picture("majority", summary.majority(classes.void), classes)
    entropy = summary.entropy.numpy()
    _draw(places[0], image)
    _draw(places[2], majority)
    # with many classes the entropy hardly ever comes close to log2 C
    _draw_with_scale(places[4], PanelImage("entropy in bits", entropy, HEAT, max(1.0, float(entropy.max()))))
    if len(classes) == 2:
        _draw(places[1], PanelImage(f"outlines of {len(summary.samples)} samples", image.values))
        _draw_outlines(places[1], summary.samples)
        _draw_with_scale(places[3], PanelImage("mean probability", summary.probabilities[1].numpy()))
    else:
        _draw(places[1], PanelImage("majority on image", (image.pixels() / 255 + np.asarray(majority.values)) / 2))
        _draw_legend(places[3], summary.majority(classes.void).numpy(), classes)


def _draw(place: Axes, picture: PanelImage) -> None:
    show(place, picture)
    place.set_title(picture.title, fontsize=8, color=_INK)


def _draw_with_scale(place: Axes, picture: PanelImage) -> None:
    """Draw a picture with a colour bar below it."""
    _draw(place, picture)
    bar = place.figure.colorbar(place.images[0], cax=place.inset_axes((0, -0.07, 1, 0.04)), orientation="horizontal")
    bar.set_ticks([0, picture.highest], labels=["0", f"{picture.highest:.3g}"])
    bar.ax.tick_params(labelsize=6, length=0, pad=1, colors=_INK)
    bar.outline.set_visible(False)


def _draw_outlines(place: Axes, samples: Tensor) -> None:
    """The border of class 1 in every sample, fainter if there are many; an image of one row has no borders."""
    if min(samples.shape[-2:]) == 1:
        return
    for sample in samples.numpy():
        if sample.any() and not sample.all():
            place.contour(sample, levels=[0.5], colors=_OUTLINE, linewidths=1.0, alpha=max(0.4, len(samples) ** -0.5))


def _draw_legend(place: Axes, majority: np.ndarray, classes: ClassTable) -> None:
    """The most frequent classes."""
    present, counts = np.unique(majority, return_counts=True)
    patches = [
        Patch(facecolor=classes.colours[label] / 255, edgecolor=_INK, label=classes.names[label])
        for label in present[np.argsort(-counts)][:20]
    ]
    columns = 1 if len(patches) <= 10 else 2
    legend = place.legend(handles=patches, fontsize=6, loc="center", frameon=False, ncols=columns)
    for text in legend.get_texts():
        text.set_parse_math(False)
    place.set_axis_off()
