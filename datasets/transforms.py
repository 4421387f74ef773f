"""Augmentation of images together with their label maps, named in the settings (`dataset_pipeline_train`).

An augmentation changes a whole batch at once and is a function `augment(images, labels, keys)` of

    images    float32, B x channels x H x W
    labels    uint8, B x H x W
    keys      int64, B: what is drawn for an item is a function of its key alone

that returns both. Besides, every transform of torchvision.transforms.v2 will do, one of your own too: by its name in
`TRANSFORMS`, or by the dotted name of a class or function that gives one when called without arguments. It meets each
item on its own, as a `tv_tensors.Image` with values in [0, 1] and a `tv_tensors.Mask`.
"""

import importlib
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torchvision import tv_tensors
from torchvision.transforms import v2

from datasets.normalisation import Normalisation
from utils.errors import UserError
from utils.noise import derive_key, uniform

Augment = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]

_DONE_BY_THE_DATA_SET = {"resize": "its size is set by dataset_params.size", "torchvision_normalise": "always"}


def flip(images: Tensor, labels: Tensor, keys: Tensor) -> tuple[Tensor, Tensor]:
    """Mirror left and right with probability 1/2."""
    return _where(_coin(keys), (images.flip(-1), labels.flip(-1)), (images, labels))


def flip_vertical(images: Tensor, labels: Tensor, keys: Tensor) -> tuple[Tensor, Tensor]:
    """Mirror top and bottom with probability 1/2."""
    return _where(_coin(keys), (images.flip(-2), labels.flip(-2)), (images, labels))


def quarter_turn(images: Tensor, labels: Tensor, keys: Tensor) -> tuple[Tensor, Tensor]:
    """Turn by 0, 90, 180 or 270 degrees, each as likely; images that are not square keep their shape: 0 or 180."""
    turned = images.flip((-1, -2)), labels.flip((-1, -2))
    images, labels = _where(_coin(derive_key(keys, "half")), turned, (images, labels))
    if images.shape[-1] != images.shape[-2]:
        return images, labels
    turned = images.rot90(1, (-2, -1)), labels.rot90(1, (-2, -1))
    return _where(_coin(derive_key(keys, "quarter")), turned, (images, labels))


class PerItemTransform:
    """A transform of torchvision.transforms.v2 as an augmentation: one item after the other, each from its own key."""

    def __init__(self, transform: nn.Module, normalisation: Normalisation) -> None:
        self.transform, self.normalisation = transform, normalisation

    def __call__(self, images: Tensor, labels: Tensor, keys: Tensor) -> tuple[Tensor, Tensor]:
        """Images and label maps, both changed in the same way."""
        normalisation = self.normalisation.to(images.device)
        changed_images, changed_labels = torch.empty_like(images), torch.empty_like(labels)
        with torch.random.fork_rng(devices=[]):
            for row, (image, map_, key) in enumerate(
                zip(normalisation.undo(images), labels, keys.tolist(), strict=True)
            ):
                torch.default_generator.manual_seed(key & (2**63 - 1))
                changed, mask = self.transform(tv_tensors.Image(image), tv_tensors.Mask(map_[None]))
                if changed.shape != image.shape or mask.shape[1:] != map_.shape:
                    raise UserError(
                        f"dataset_pipeline_train: {type(self.transform).__name__} turns an image of "
                        f"{tuple(image.shape)} into {tuple(changed.shape)}; the size must stay as it is"
                    )
                changed_images[row], changed_labels[row] = changed, mask[0]
        return normalisation.apply(changed_images), changed_labels


AUGMENTATIONS: dict[str, Augment] = {"flip": flip, "flip_vertical": flip_vertical, "quarter_turn": quarter_turn}
TRANSFORMS: dict[str, Callable[[], nn.Module]] = {
    "colorjitter": lambda: v2.ColorJitter(brightness=0.5, contrast=0.5, saturation=0.5),
}


class Augmentation:
    """The named augmentations in a row.

    Args:
        names: names of `AUGMENTATIONS` or `TRANSFORMS`, or dotted names.
        normalisation: of the images.

    Raises:
        UserError: for a name that does not exist.
    """

    def __init__(self, names: Sequence[str], normalisation: Normalisation) -> None:
        self._steps = [
            (f"{name} {names[:position].count(name)}", _augmentation(name, normalisation))
            for position, name in enumerate(names)
        ]

    def __call__(self, images: Tensor, labels: Tensor, keys: Tensor) -> tuple[Tensor, Tensor]:
        """Images (B x channels x H x W) and their label maps (B x H x W), changed as the keys (B) have it."""
        for name, augment in self._steps:
            images, labels = augment(images, labels, derive_key(keys, name))
        return images, labels


def _augmentation(name: str, normalisation: Normalisation) -> Augment:
    if name in AUGMENTATIONS:
        return AUGMENTATIONS[name]
    if name in _DONE_BY_THE_DATA_SET:
        raise UserError(
            f"dataset_pipeline_train: leave {name!r} out; the data set does that itself ({_DONE_BY_THE_DATA_SET[name]})"
        )
    factory = TRANSFORMS.get(name) or _imported(name)
    try:
        return PerItemTransform(factory(), normalisation)
    except TypeError as error:
        raise UserError(f"dataset_pipeline_train: {name} cannot be called without arguments: {error}") from error


def _imported(name: str) -> Callable[[], nn.Module]:
    module, _, attribute = name.rpartition(".")
    try:
        factory: Callable[[], nn.Module] = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(
            f"dataset_pipeline_train: unknown {name!r}; there are: {', '.join([*AUGMENTATIONS, *TRANSFORMS])}, "
            f"and dotted names such as torchvision.transforms.v2.RandomErasing"
        ) from error
    return factory


def _coin(keys: Tensor) -> Tensor:
    return uniform(keys, (1,))[:, 0] < 0.5


def _where(chosen: Tensor, one: tuple[Tensor, Tensor], other: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """For every item of the batch, the image and the label map of `one` where it is chosen, else those of `other`."""
    number = len(chosen)
    rows = torch.arange(number, device=chosen.device) + number * chosen
    # Whole items are copied in a row: on a CPU several times faster than a choice pixel by pixel.
    images, labels = (torch.cat(pair).index_select(0, rows) for pair in zip(other, one, strict=True))
    return images, labels
