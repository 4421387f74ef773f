"""The files that are written for an image."""

import json
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from evaluation.classes import ClassTable, write_png
from models import Samples
from prediction.panel import panel
from prediction.summary import Summary
from utils.paths import write_atomically, write_text

AREAS = "areas.json"
"""The file that is written last, and that marks a folder of results."""

_RESULTS = ("panel.png", "samples.*", "samples/[0-9][0-9]*.png", "majority.*", "entropy.*", "probability_*.*")


def write_outputs(
    folder: Path, image: Tensor, samples: Samples, classes: ClassTable, about: dict[str, Any]
) -> dict[str, Any]:
    """Write the results of one image into its folder; earlier ones go.

        panel.png                  the image, outlines, majority, mean probability, entropy and samples at a glance
        samples/01.png ...         each sample: the class of every pixel, with the classes' colours as palette
        majority.png               the most frequent class, with the same palette
        probability_<class>.png    the mean probability of a class other than the background, 0 .. 255 for 0 .. 1
        entropy.png                entropy of the mean probabilities, 0 .. 255 for 0 .. log2 C bits, with a palette
        samples.npz                `samples` (uint8, S x H x W), `probabilities` (float32, C x H x W), and `entropy`
                                   (float32, H x W, bits)
        areas.json                 `about`, and the statistics of `Summary`

    `image` is 1 x channels x H x W, `about` plain data about it and how it was sampled. Returns the contents of
    areas.json. Raises UserError if a file cannot be written.
    """
    summary = Summary.from_samples(samples)
    probabilities, entropy = summary.probabilities.numpy(), summary.entropy.float().numpy()
    colours, heat = classes.colours, matplotlib.colormaps["magma"](np.arange(256), bytes=True)[:, :3]

    remove_results(folder)
    for number, sample in enumerate(summary.samples.numpy(), start=1):
        write_png(folder / "samples" / f"{number:02d}.png", sample, colours)
    write_png(folder / "majority.png", summary.majority(classes.void).numpy(), colours)
    for label in classes.shown:
        write_png(folder / f"probability_{classes.file_name(label)}.png", _to_bytes(probabilities[label]))
    write_png(folder / "entropy.png", _to_bytes(entropy / np.log2(len(probabilities))), heat)

    def write_arrays(temporary: Path) -> None:
        with temporary.open("wb") as file:  # given a path, NumPy would append .npz to it
            np.savez_compressed(file, samples=summary.samples.numpy(), probabilities=probabilities, entropy=entropy)

    write_atomically(folder / "samples.npz", write_arrays)
    write_panel(folder, image, samples, classes)
    areas = {**about, **summary.statistics(classes)}
    write_areas(folder, areas)
    return areas


def remove_results(folder: Path) -> None:
    """Remove the results of an earlier prediction, if the folder holds them: the classes may be others now, or an image
    a volume. areas.json goes first, so that nothing takes the rest for complete."""
    if not (folder / AREAS).is_file():
        return
    (folder / AREAS).unlink()
    for pattern in _RESULTS:
        for path in filter(Path.is_file, list(folder.glob(pattern))):
            path.unlink()


def write_panel(folder: Path, image: Tensor, samples: Samples, classes: ClassTable) -> None:
    """Write panel.png. Raises UserError if that is not possible."""
    figure = panel(image, samples, classes)
    write_atomically(folder / "panel.png", lambda temporary: figure.savefig(temporary, format="png"))
    figure.clear()  # its parts refer to each other, and would stay in memory until the next garbage collection


def write_areas(folder: Path, areas: dict[str, Any]) -> None:
    """Write areas.json. Raises UserError if that is not possible."""
    write_text(folder / AREAS, json.dumps(areas, indent=2) + "\n")


def _to_bytes(values: NDArray[Any]) -> NDArray[np.uint8]:
    """Map [0, 1] to 0 .. 255."""
    return np.rint(values.clip(0, 1) * 255).astype(np.uint8)
