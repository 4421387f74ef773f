"""Augmentation of images together with their label maps, named in the settings (`dataset_pipeline_train`).

An augmentation changes a whole batch at once. It is a function `augment(images, labels, keys)` of

    images    float32, B x channels x H x W
    labels    uint8, B x A x H x W: the label maps of all raters change in the same way
    keys      int64, B: every random choice for an item is a function of its key

that returns images and labels. The settings name entries of `AUGMENTATIONS` and `TRANSFORMS`, or give a dotted name,
which may lead to a module of your own: either of a function with exactly these three arguments, or of a transform as in
torchvision.transforms.v2 that can be created without arguments. A transform receives one item at a time, as a
`tv_tensors.Image` with values in [0, 1] and a `tv_tensors.Mask`.
"""

import inspect
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torchvision import tv_tensors
from torchvision.transforms import v2

from datasets.normalisation import Normalisation
from utils.errors import UserError
from utils.modules import call, import_module
from utils.noise import derive_key, uniform

Augment = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]

_SETTING = "dataset_pipeline_train"
_BUILT_IN = {"resize": "dataset_params.size sets the size", "torchvision_normalise": "images are always normalised"}


def flip(images: Tensor, labels: Tensor, keys: Tensor) -> tuple[Tensor, Tensor]:
    """Mirror left and right with probability 1/2."""
    return _where(_coin(keys), (images.flip(-1), labels.flip(-1)), (images, labels))


def flip_vertical(images: Tensor, labels: Tensor, keys: Tensor) -> tuple[Tensor, Tensor]:
    """Mirror top and bottom with probability 1/2."""
    return _where(_coin(keys), (images.flip(-2), labels.flip(-2)), (images, labels))


def quarter_turn(images: Tensor, labels: Tensor, keys: Tensor) -> tuple[Tensor, Tensor]:
    """Rotate by 0, 90, 180 or 270 degrees with equal probability; images that are not square, by 0 or 180 degrees."""
    turned = images.flip((-1, -2)), labels.flip((-1, -2))
    images, labels = _where(_coin(derive_key(keys, "half")), turned, (images, labels))
    if images.shape[-1] != images.shape[-2]:
        return images, labels
    turned = images.rot90(1, (-2, -1)), labels.rot90(1, (-2, -1))
    return _where(_coin(derive_key(keys, "quarter")), turned, (images, labels))


class PerItemTransform:
    """A transform of torchvision.transforms.v2 as an augmentation: applied to each item, seeded by the item's key."""

    def __init__(self, transform: nn.Module, normalisation: Normalisation) -> None:
        self.transform, self.normalisation = transform, normalisation

    def __call__(self, images: Tensor, labels: Tensor, keys: Tensor) -> tuple[Tensor, Tensor]:
        """Transform images and label maps alike."""
        normalisation = self.normalisation.to(images.device)
        new_images, new_labels = torch.empty_like(images), torch.empty_like(labels)
        items = zip(normalisation.undo(images), labels, keys.tolist(), strict=True)
        with torch.random.fork_rng(devices=[]):
            for row, (image, maps, key) in enumerate(items):
                torch.default_generator.manual_seed(key & (2**63 - 1))
                new_image, mask = self.transform(tv_tensors.Image(image), tv_tensors.Mask(maps))
                if new_image.shape != image.shape or mask.shape != maps.shape:
                    name, sizes = type(self.transform).__name__, f"{tuple(image.shape)} into {tuple(new_image.shape)}"
                    raise UserError(f"{_SETTING}: {name} turns an image of {sizes}; expected the same size")
                new_images[row], new_labels[row] = new_image, mask
        return normalisation.apply(new_images), new_labels


AUGMENTATIONS: dict[str, Augment] = {"flip": flip, "flip_vertical": flip_vertical, "quarter_turn": quarter_turn}
TRANSFORMS: dict[str, Callable[[], nn.Module]] = {
    "colorjitter": lambda: v2.ColorJitter(brightness=0.5, contrast=0.5, saturation=0.5),
}


class Augmentation:
    """Augmentations applied one after the other: names of `AUGMENTATIONS` or `TRANSFORMS`, or dotted names.

    Raises UserError for a name that does not exist.
    """

    def __init__(self, names: Sequence[str], normalisation: Normalisation) -> None:
        self._steps = [
            (f"{name} {names[:position].count(name)}", _augmentation(name, normalisation))
            for position, name in enumerate(names)
        ]

    def __call__(self, images: Tensor, labels: Tensor, keys: Tensor) -> tuple[Tensor, Tensor]:
        """Augment images (B x channels x H x W) and label maps (B x A x H x W) as a function of the keys (B)."""
        for name, augment in self._steps:
            images, labels = augment(images, labels, derive_key(keys, name))
        return images, labels


def _augmentation(name: str, normalisation: Normalisation) -> Augment:
    if name in AUGMENTATIONS:
        return AUGMENTATIONS[name]
    if name in TRANSFORMS:
        return PerItemTransform(TRANSFORMS[name](), normalisation)
    if name in _BUILT_IN:
        raise UserError(f"{_SETTING}: remove {name!r}; the dataset does it ({_BUILT_IN[name]})")
    names = [*AUGMENTATIONS, *TRANSFORMS, "torchvision.transforms.v2.RandomErasing"]
    module_name, _, attribute = name.rpartition(".")
    if not module_name:
        raise UserError(f"{_SETTING}: unknown name {name!r}; use one of {', '.join(names)}, or the name of your own")
    module = import_module(module_name, _SETTING, names)
    found: Augment | None = getattr(module, attribute, None)
    if inspect.isfunction(found) and list(inspect.signature(found).parameters) == ["images", "labels", "keys"]:
        return found
    return PerItemTransform(call(module, attribute, _SETTING), normalisation)


def _coin(keys: Tensor) -> Tensor:
    return uniform(keys, (1,))[:, 0] < 0.5


def _where(chosen: Tensor, one: tuple[Tensor, Tensor], other: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """For each item of the batch, the image and label map of `one` if it is chosen, else of `other`."""
    number = len(chosen)
    rows = torch.arange(number, device=chosen.device) + number * chosen
    # On a CPU, copying whole items is several times faster than selecting pixel by pixel.
    images, labels = (torch.cat(pair).index_select(0, rows) for pair in zip(other, one, strict=True))
    return images, labels
