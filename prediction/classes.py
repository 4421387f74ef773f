"""The classes of a network as pictures and tables show them."""

from dataclasses import dataclass

import matplotlib
import numpy as np
from numpy.typing import NDArray

from checkpoints.preprocessing import Preprocessing


@dataclass(frozen=True)
class ClassTable:
    """Names and colours of all C classes.

    Attributes:
        names: of each; its number where the data set has no names.
        colours: red, green and blue of each, uint8, C x 3.
        void: the class that is not evaluated, if there is one.
    """

    names: list[str]
    colours: NDArray[np.uint8]
    void: int | None = None

    @staticmethod
    def of(num_classes: int, preprocessing: Preprocessing | None = None) -> "ClassTable":
        """The classes of a data set; what it does not say is made up: numbers, and colours from black on."""
        names = [str(label) for label in range(num_classes)]
        colours, void = _made_up(num_classes), None
        if preprocessing is not None:
            names = list(preprocessing.class_names or names)
            colours = np.array(preprocessing.class_colours or colours, dtype=np.uint8)
            void = preprocessing.void_class
        return ClassTable(names, colours, void)

    @property
    def shown(self) -> list[int]:
        """The classes that results speak of: all but the background, which is class 0, or all but void."""
        return [label for label in range(len(self.names)) if label != (0 if self.void is None else self.void)]

    def file_name(self, label: int) -> str:
        """The name of a class as part of a file's name."""
        return "".join(sign if sign.isalnum() or sign in "-." else "_" for sign in self.names[label])


def _made_up(num_classes: int) -> NDArray[np.uint8]:
    """Black, then white where there are two classes, or colours that differ."""
    if num_classes == 2:
        return np.array([[0, 0, 0], [255, 255, 255]], dtype=np.uint8)
    name = "tab10" if num_classes <= 11 else "tab20"
    colours = matplotlib.colormaps[name if num_classes <= 21 else "turbo"]
    steps = np.arange(num_classes - 1) if num_classes <= 21 else np.linspace(0, 1, num_classes - 1)
    return np.concatenate([np.zeros((1, 3), np.uint8), colours(steps, bytes=True)[:, :3]])
