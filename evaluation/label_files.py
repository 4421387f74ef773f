"""Predicted label maps as picture files, in the layout that the Cityscapes scripts look for."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from evaluation.classes import Classes
from utils.paths import write_atomically


class LabelFiles:
    """Two folders, one file an image in each.

        predictions/<city>/<name>_pred_labelIds.png              the id of each pixel's class, 8 bits, one channel
        predictions_in_colour/<city>/<name>_pred_color.png       its colour, where the data set has colours

    The city is what stands before the first underscore of the name; names without one lie in the folder itself. Colours
    lie apart since the Cityscapes scripts take every picture of an image's name below their folder for a prediction.
    """

    def __init__(self, folder: Path, classes: Classes) -> None:
        self._folder, self._classes = folder, classes

    def hold(self, name: str) -> bool:
        """Whether the image's predictions are there."""
        return self._ids(name).is_file() and (self._classes.colours is None or self._colours(name).is_file())

    def write(self, name: str, label_map: Tensor) -> None:
        """Write a label map: positions in `Classes`, H x W."""
        positions = label_map.numpy(force=True)
        _save(self._ids(name), self._classes.ids[positions])
        if self._classes.colours is not None:
            _save(self._colours(name), self._classes.colours[positions])

    def _ids(self, name: str) -> Path:
        return self._folder / "predictions" / _city(name) / f"{name}_pred_labelIds.png"

    def _colours(self, name: str) -> Path:
        return self._folder / "predictions_in_colour" / _city(name) / f"{name}_pred_color.png"


def _city(name: str) -> str:
    city, underscore, _ = name.partition("_")
    return city if underscore else ""


def _save(path: Path, pixels: NDArray[np.uint8]) -> None:
    picture: Any = Image.fromarray(pixels)
    write_atomically(path, lambda temporary: picture.save(temporary, format="png"))
