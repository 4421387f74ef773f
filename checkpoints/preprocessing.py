"""What a checkpoint says of the images and classes that its network was trained on, under `preprocessing`:

    image_mean, image_std    for every channel: the network sees (x - mean) / std of intensities x in [0, 1]
    size                     height and width of the training images in pixels
    class_names              C names
    class_colours            C triples of red, green and blue, 0 .. 255
    void_class               the class that is not evaluated

What the data set does not have is null. Checkpoints of before, and official ones, are completed by what is known of the
data set that they name.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from datasets.checks import check_item
from datasets.cityscapes import Cityscapes
from datasets.loading import AnnotatedDataset
from datasets.normalisation import Normalisation
from utils.logs import LOGGER

_USUAL_SIZES = {
    "datasets.synthetic": (32, 32),
    "datasets.lidc": (128, 128),
    "datasets.lidc_crops": (128, 128),
    "datasets.cityscapes": (128, 256),
}


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """See the module's docstring for the attributes."""

    image_mean: Sequence[float]
    image_std: Sequence[float]
    size: tuple[int, int] | None = None
    class_names: Sequence[str] | None = None
    class_colours: Sequence[Sequence[int]] | None = None
    void_class: int | None = None

    @property
    def image_channels(self) -> int:
        """Channels of the images."""
        return len(self.image_mean)

    @property
    def normalisation(self) -> Normalisation:
        """How intensities become what the network sees."""
        return Normalisation.from_dataset(self)

    def as_data(self) -> dict[str, Any]:
        """Plain data for a checkpoint."""
        return dataclasses.asdict(self)

    @staticmethod
    def of(dataset: AnnotatedDataset) -> "Preprocessing":
        """That of a data set, whose first image is read for its size.

        Raises:
            UserError: where that item breaks the contract of data sets.
        """
        item = dataset[0]
        check_item(item, dataset, 0)
        mean, std = (values.flatten().tolist() for values in Normalisation.from_dataset(dataset))
        names, colours = (getattr(dataset, name, None) for name in ("class_names", "class_colours"))
        return Preprocessing(
            mean,
            std,
            (item["image"].shape[-2], item["image"].shape[-1]),
            None if names is None else [str(name) for name in names],
            None if colours is None else [[int(part) for part in colour] for colour in colours],
            getattr(dataset, "void_class", None),
        )

    @staticmethod
    def of_checkpoint(contents: Mapping[str, Any]) -> "Preprocessing":
        """That of a checkpoint's contents; what they do not say is taken from the data set that they name."""
        assumed = _assumed(contents)
        said = {name: value for name, value in contents.get("preprocessing", {}).items() if value is not None}
        if "image_mean" not in said:
            LOGGER.info(
                "the checkpoint does not say how its images were scaled; taken: (x - %s) / %s of intensities in [0, 1]",
                assumed.image_mean, assumed.image_std,
            )  # fmt: skip
        if "size" in said:
            said["size"] = tuple(said["size"])
        return dataclasses.replace(assumed, **said)


def _assumed(contents: Mapping[str, Any]) -> Preprocessing:
    """What holds for the data set of the settings: Cityscapes' own, and [-1, 1] for all others."""
    settings, network = contents["settings"], contents["network"]
    name, params = settings.get("dataset_file"), settings.get("dataset_params") or {}
    size = _USUAL_SIZES.get(name)
    if "size" in params:
        size = tuple(params["size"])
    elif "side" in params:
        size = (params["side"], params["side"])
    if name == "datasets.cityscapes" and network["num_classes"] == Cityscapes.num_classes:
        data = Cityscapes
        return Preprocessing(
            data.image_mean, data.image_std, size, data.class_names, data.class_colours, data.void_class
        )
    middle = [0.5] * network["image_channels"]
    return Preprocessing(middle, middle, size)
