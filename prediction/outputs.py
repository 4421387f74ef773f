"""The files that are written for an image."""

import json
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from models import Samples
from prediction.classes import ClassTable
from prediction.panel import panel
from prediction.summary import Summary
from utils.paths import write_atomically, write_text


def write_outputs(folder: Path, image: Tensor, drawn: Samples, classes: ClassTable, about: dict[str, Any]) -> None:
    """Write all that is kept of one image into its folder.

        panel.png                  the image, outlines, majority, mean probability, entropy and samples, to look at
        samples/01.png ...         every sample: the class of each pixel, with the classes' colours as palette
        majority.png               the class that most samples have, with the same palette
        probability_<class>.png    the mean probability of a class but the background, 0 .. 255 for 0 .. 1
        entropy.png                entropy of the mean probabilities, 0 .. 255 for 0 .. log2 C bits, with a palette
        samples.npz                `samples` (uint8, S x H x W), `probabilities` (float32, C x H x W), and `entropy`
                                   (float32, H x W, bits)
        areas.json                 `about`, and the statistics of `Summary`

    Args:
        folder: of the image.
        image: 1 x channels x H x W.
        drawn: its samples.
        classes: of the network.
        about: what is known of image and draw, as data.

    Raises:
        UserError: where something cannot be written.
    """
    summary = Summary.of(drawn)
    probabilities, entropy = summary.probabilities.numpy(), summary.entropy.numpy()
    colours, heat = classes.colours, matplotlib.colormaps["magma"](np.arange(256), bytes=True)[:, :3]

    for number, sample in enumerate(summary.samples.numpy(), start=1):
        _write_picture(folder / "samples" / f"{number:02d}.png", sample, colours)
    _write_picture(folder / "majority.png", summary.majority(classes.void).numpy(), colours)
    for label in classes.shown:
        _write_picture(folder / f"probability_{classes.file_name(label)}.png", _bytes(probabilities[label]))
    _write_picture(folder / "entropy.png", _bytes(entropy / np.log2(len(probabilities))), heat)

    def write_arrays(temporary: Path) -> None:
        with temporary.open("wb") as file:
            np.savez_compressed(
                file, samples=summary.samples.numpy(), probabilities=probabilities, entropy=entropy.astype(np.float32)
            )

    write_atomically(folder / "samples.npz", write_arrays)
    figure = panel(image, drawn, classes)
    write_atomically(folder / "panel.png", lambda temporary: figure.savefig(temporary, format="png"))
    write_text(folder / "areas.json", json.dumps({**about, **summary.statistics(classes)}, indent=2) + "\n")


def _write_picture(path: Path, pixels: NDArray[np.uint8], palette: NDArray[np.uint8] | None = None) -> None:
    picture: Any = Image.fromarray(pixels)
    if palette is not None:
        picture.putpalette(palette.tobytes())
    write_atomically(path, lambda temporary: picture.save(temporary, format="png"))


def _bytes(values: NDArray[Any]) -> NDArray[np.uint8]:
    """Values from 0 to 1 as 0 .. 255."""
    return np.rint(values.clip(0, 1) * 255).astype(np.uint8)
