"""The entry `preprocessing` of a checkpoint: images and classes that its network was trained on."""

from collections.abc import Mapping
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from datasets import AnnotatedDataset
from datasets.contract import check_item
from datasets.normalisation import Normalisation
from utils.config import Config, NonNegative, Size, validate
from utils.errors import UserError

_Byte = Annotated[int, Field(ge=0, le=255)]


class Preprocessing(Config):
    """What is needed to prepare other images in the same way, and to name and colour the classes."""

    image_mean: list[float]  # per channel; the network sees (x - mean) / std of intensities x in [0, 1]
    image_std: list[Annotated[float, Field(gt=0)]]
    size: Size | None = None  # height, width of training images
    class_names: list[Annotated[str, Field(max_length=200)]] | None = None  # C names
    class_colours: list[Annotated[tuple[_Byte, _Byte, _Byte], Field(strict=False)]] | None = None  # C times RGB
    void_class: NonNegative | None = None  # the class that is excluded from the evaluation

    @property
    def image_channels(self) -> int:
        """Channels of the images."""
        return len(self.image_mean)

    @property
    def normalisation(self) -> Normalisation:
        """How intensities become the network's input."""
        return Normalisation.from_values(self.image_mean, self.image_std)

    def check(self, num_classes: int, image_channels: int) -> None:
        """Check that it describes images of so many channels, and so many classes. Raises ValueError."""
        tables = {"image_mean": self.image_mean, "image_std": self.image_std}
        classes = {"class_names": self.class_names, "class_colours": self.class_colours}
        for size, columns in ((image_channels, tables), (num_classes, classes)):
            for name, column in columns.items():
                if column is not None and len(column) != size:
                    raise ValueError(f"`{name}` has {len(column)} entries; expected {size}")
        if self.void_class is not None and self.void_class >= num_classes:
            raise ValueError(f"`void_class` is {self.void_class}; expected a class below {num_classes}")

    @staticmethod
    def from_dataset(dataset: AnnotatedDataset) -> "Preprocessing":
        """Read the attributes of a dataset, and the size of its first image. Raises UserError if they violate the
        contract of datasets."""
        item = dataset[0]
        check_item(item, dataset, 0)
        mean, std = (values.flatten().tolist() for values in Normalisation.from_dataset(dataset))
        names, colours = (getattr(dataset, name, None) for name in ("class_names", "class_colours"))
        values = {
            "image_mean": mean,
            "image_std": std,
            "size": tuple(item["image"].shape[-2:]),
            "class_names": None if names is None else [str(name) for name in names],
            "class_colours": None if colours is None else np.array(colours, dtype=int).tolist(),
            "void_class": getattr(dataset, "void_class", None),
        }
        where = str(getattr(dataset, "source", type(dataset).__name__))
        found = validate(Preprocessing, values, where)
        try:
            found.check(dataset.num_classes, dataset.image_channels)
        except ValueError as error:
            raise UserError(f"{where}: {error}") from error
        return found

    @staticmethod
    def from_checkpoint(contents: Mapping[str, Any]) -> "Preprocessing":
        """The entry of a checkpoint's contents. Raises UserError if it is not what it should be."""
        return validate(Preprocessing, contents["preprocessing"], "the checkpoint's preprocessing")
