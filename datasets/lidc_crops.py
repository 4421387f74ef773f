"""LIDCv2: the png crops of the Hierarchical Probabilistic U-Net (Kohl et al., 2019, arXiv 1905.13077).

The tree, with 180 x 180 pixels an image:

    lidc_crops_{split}/{split}/images/<patient>/<slice>.png
    lidc_crops_{split}/{split}/gt/<patient>/<slice>_l{0..3}.png

for the splits train, val and test. Annotators belong to an image by their files' names. What the network sees is the
128 x 128 pixels in the middle.
"""

import re
from collections import defaultdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from datasets.checks import label_maps
from datasets.image_files import read_grey
from utils.errors import UserError
from utils.noise import seed_from
from utils.paths import expand_path

DEFAULT_PATH = "${TMPDIR}"
SIDE = 128

_MASK_NAME = re.compile(r"(?P<slice>.+)_l(?P<annotator>\d+)")


class Crop(NamedTuple):
    """The files of one image: its patient, its name, and the picture of each annotator, by the annotator's number."""

    patient: str
    name: str
    image: Path
    masks: list[Path]

    def read(self) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """The middle of the image (128 x 128, 0 .. 255) and of its label maps (A x 128 x 128, classes 0 and 1).

        Raises:
            UserError: for pictures that are damaged, too small, of different sizes, or hold no label map.
        """
        image = read_grey(self.image)
        masks = [read_grey(path) for path in self.masks]
        for path, mask in zip(self.masks, masks, strict=True):
            if mask.shape != image.shape:
                raise UserError(f"{path} is {mask.shape}, its image {self.image} {image.shape}: expected the same size")
            if len(other := set(np.unique(mask).tolist()) - {0, 1, 255}):
                raise UserError(f"{path} holds {min(other)}; expected 0 for background and 255 (or 1) for the lesion")
        if min(image.shape) < SIDE:
            raise UserError(f"{self.image} is {image.shape}; expected at least {SIDE} x {SIDE} pixels")
        top, left = ((length - SIDE) // 2 for length in image.shape)
        middle = slice(top, top + SIDE), slice(left, left + SIDE)
        return image[middle], np.stack([mask[middle] > 0 for mask in masks]).astype(np.uint8)


class LIDCCrops(Dataset[dict[str, Any]]):
    """One split of the tree, sorted by patient and slice. Images come out in [-1, 1]. See `find_crops`."""

    num_classes = 2
    class_names = ("background", "nodule")
    image_channels = 1

    def __init__(self, path: Path, split: str) -> None:
        self.source = str(path)
        self.crops = find_crops(path, split)

    def __len__(self) -> int:
        return len(self.crops)

    def __getitem__(self, index: int) -> dict[str, Any]:
        crop = self.crops[index]
        image, labels = crop.read()
        return {
            "image": torch.from_numpy(image.astype(np.float32) * np.float32(2 / 255) - 1)[None],
            "labels": label_maps(labels, self.num_classes, str(crop.image)),
            "name": crop.name,
            "group": seed_from(crop.patient),
        }


def get_dataset(split: str, path: str = DEFAULT_PATH) -> LIDCCrops:
    """The named split; `path` is the folder that holds lidc_crops_train, lidc_crops_val and lidc_crops_test."""
    return LIDCCrops(expand_path(path), split)


def find_crops(path: Path, split: str) -> list[Crop]:
    """The files of a split, sorted by patient and slice.

    Raises:
        UserError: for a folder that is not there, a split without images, an image without the label map of one of the
            split's annotators, a label map without its image, and a patient who is in two splits.
    """
    folder = path / f"lidc_crops_{split}" / split
    for part in (folder / "images", folder / "gt"):
        if not part.is_dir():
            raise UserError(f"there is no folder {part}; set dataset_params.path to the folder of lidc_crops_{split}")
    masks: dict[tuple[str, str], dict[int, Path]] = defaultdict(dict)
    for mask in folder.glob("gt/*/*.png"):
        parts = _MASK_NAME.fullmatch(mask.stem)
        if parts is None:
            raise UserError(f"{mask}: expected a name such as <slice>_l0.png")
        masks[mask.parent.name, parts["slice"]][int(parts["annotator"])] = mask
    annotators = sorted({annotator for found in masks.values() for annotator in found})
    crops = []
    for image in sorted(folder.glob("images/*/*.png"), key=lambda image: (image.parent.name, image.stem)):
        patient, name = image.parent.name, image.stem
        found = masks.pop((patient, name), {})
        missing = [f"{name}_l{annotator}.png" for annotator in annotators or [0] if annotator not in found]
        if missing:
            raise UserError(f"{image} lacks {', '.join(missing)} in {folder / 'gt' / patient}")
        crops.append(Crop(patient, f"{split}/{patient}/{name}", image, [found[annotator] for annotator in annotators]))
    if not crops:
        raise UserError(f"{folder / 'images'} holds no images; expected <patient>/<slice>.png")
    if masks:
        patient, name = min(masks)
        raise UserError(
            f"{folder / 'gt' / patient} has label maps of {name}, but no {folder}/images/{patient}/{name}.png"
        )
    _check_patients(path, split, {crop.patient for crop in crops})
    return crops


def _check_patients(path: Path, split: str, patients: set[str]) -> None:
    for other in {"train", "val", "test"} - {split}:
        folder = path / f"lidc_crops_{other}" / other / "images"
        shared = patients & {patient.name for patient in folder.glob("*")}
        if shared:
            raise UserError(f"{path}: patient {min(shared)} is in the splits {split} and {other}; expected one split")
