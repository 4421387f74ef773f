"""The classes of a dataset as tables and pictures show them, and predictions as picture files."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from checkpoints.preprocessing import Preprocessing
from datasets import AnnotatedDataset
from utils.distributed import is_main
from utils.paths import safe_name, write_atomically, write_text

Palette = NDArray[np.uint8]


@dataclass(frozen=True)
class ClassTable:
    """Names and colours of all C classes."""

    names: list[str]  # C
    colours: Palette  # red, green and blue: uint8, C x 3
    void: int | None  # the class that is not evaluated, if there is one
    ids: NDArray[np.uint8]  # the number that represents each class in label files: uint8, C

    @classmethod
    def create(
        cls,
        num_classes: int,
        names: Sequence[str] | None = None,
        colours: Sequence[Sequence[int]] | None = None,
        void: int | None = None,
        ids: Sequence[int] | None = None,
    ) -> "ClassTable":
        """By default names and ids are the classes' numbers, and colours from `default_colours`. Names that several
        classes have get their numbers, since names identify classes in results."""
        texts = [str(name) for name in names or range(num_classes)]
        return cls(
            [f"{label} {name}" if texts.count(name) > 1 else name for label, name in enumerate(texts)],
            default_colours(num_classes, void) if colours is None else np.array(colours, dtype=np.uint8),
            void,
            np.array(range(num_classes) if ids is None else ids, dtype=np.uint8),
        )

    @classmethod
    def from_dataset(cls, data: AnnotatedDataset) -> "ClassTable":
        """The classes of a dataset; see the docstring of `datasets` for the attributes."""
        names, colours, void, ids = (
            getattr(data, name, None) for name in ("class_names", "class_colours", "void_class", "class_ids")
        )
        return cls.create(data.num_classes, names, colours, void, ids)

    @classmethod
    def from_preprocessing(cls, num_classes: int, preprocessing: Preprocessing | None = None) -> "ClassTable":
        """The classes of a checkpoint."""
        if preprocessing is None:
            return cls.create(num_classes)
        return cls.create(num_classes, preprocessing.class_names, preprocessing.class_colours, preprocessing.void_class)

    def __len__(self) -> int:
        return len(self.names)

    @property
    def evaluated(self) -> list[int]:
        """All classes except void."""
        return [label for label in range(len(self)) if label != self.void]

    @property
    def shown(self) -> list[int]:
        """The classes that have areas and probability maps: all except void or, without void, the background (0)."""
        return [label for label in range(len(self)) if label != (0 if self.void is None else self.void)]

    def file_name(self, label: int) -> str:
        """The name of a class as part of a file name, with its number if others have the same."""
        names = [safe_name(name.replace(" ", "_")) for name in self.names]
        same = [name.casefold() for name in names].count(names[label].casefold()) > 1
        return f"{label}_{names[label]}" if same else names[label]


def default_colours(num_classes: int, void: int | None = None) -> Palette:
    """Black for background (0) or void, white for a second class, distinct colours for more: uint8, C x 3."""
    colours = np.zeros((num_classes, 3), dtype=np.uint8)
    coloured = [label for label in range(num_classes) if label != (void or 0)]
    if len(coloured) == 1:
        colours[coloured] = 255
        return colours
    name = "tab10" if len(coloured) <= 10 else "tab20" if len(coloured) <= 20 else "turbo"
    steps = np.linspace(0.1, 1, len(coloured)) if name == "turbo" else np.arange(len(coloured))
    colours[coloured] = matplotlib.colormaps[name](steps, bytes=True)[:, :3]
    return colours


_PREDICTIONS = ("predictions", "predictions_in_colour")


class LabelFiles:
    """Predictions as PNG files in the layout that the Cityscapes scripts expect.

        predictions/<city>/<name>_pred_labelIds.png              the id of each pixel's class, 8 bits, one channel
        predictions_in_colour/<city>/<name>_pred_color.png       its colour

    The city is the part of the name before the first underscore; names without one have no city folder. Colours are in
    a folder of their own, because the Cityscapes scripts take every file with an image's name for a prediction.

    Args:
        folder: of the evaluation.
        classes: of the dataset.
        identity: of what the predictions depend on; those of another one, such as another seed or other images, are
            removed, so that the scripts never score a mixture.
    """

    def __init__(self, folder: Path, classes: ClassTable, identity: str = "") -> None:
        self._folder, self._classes = folder, classes
        marker = folder / "cache" / "predictions.txt"
        if is_main() and (not marker.is_file() or marker.read_text(encoding="utf-8", errors="replace") != identity):
            for name in _PREDICTIONS:
                for path in (folder / name).rglob("*_pred_*.png"):
                    path.unlink()
            write_text(marker, identity)

    def exist(self, name: str) -> bool:
        """Whether the image's files have been written."""
        return self._ids(name).is_file() and self._colours(name).is_file()

    def write(self, name: str, label_map: Tensor) -> None:
        """Write a label map, H x W."""
        labels = label_map.numpy(force=True)
        write_png(self._ids(name), self._classes.ids[labels])
        write_png(self._colours(name), self._classes.colours[labels])

    def _ids(self, name: str) -> Path:
        return self._path(_PREDICTIONS[0], name, "labelIds")

    def _colours(self, name: str) -> Path:
        return self._path(_PREDICTIONS[1], name, "color")

    def _path(self, folder: str, name: str, kind: str) -> Path:
        safe = safe_name(name)
        city = safe.partition("_")[0] if "_" in safe else ""
        return self._folder / folder / city.strip(". ") / f"{safe}_pred_{kind}.png"


def write_png(path: Path, pixels: NDArray[np.uint8], palette: Palette | None = None) -> None:
    """Write H x W bytes, with or without a palette (N x 3), or H x W x 3 bytes. Raises UserError if the file cannot be
    written."""
    picture: Any = Image.fromarray(pixels)
    if palette is not None:
        picture.putpalette(palette.tobytes())
    write_atomically(path, lambda temporary: picture.save(temporary, format="png"))
