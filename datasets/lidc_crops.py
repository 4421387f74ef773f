"""LIDCv2: the png crops of the Hierarchical Probabilistic U-Net (Kohl et al., 2019, arXiv 1905.13077).

The folders, with 180 x 180 pixels per image:

    lidc_crops_{split}/{split}/images/<patient>/<slice>.png
    lidc_crops_{split}/{split}/gt/<patient>/<slice>_l{0..3}.png

for the splits train, val and test; `_l{k}` is the label map of annotator k. Images and label maps are cropped to the
128 x 128 pixels in the middle.
"""

import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from datasets.contract import SPLITS
from datasets.image_files import read_grey
from utils.errors import UserError
from utils.noise import seed_from
from utils.paths import expand_path

DEFAULT_PATH = "${TMPDIR}"
SIDE = 128


class Crop(NamedTuple):
    """The files of one image, whose label maps are sorted by annotator."""

    image: Path
    labels: list[Path]

    @property
    def patient(self) -> str:
        """Name of the patient's folder."""
        return self.image.parent.name


class LIDCCrops(Dataset[dict[str, Any]]):
    """One split, sorted by patient and slice. Images are scaled to [-1, 1].

    Args:
        path: folder that contains lidc_crops_train, lidc_crops_val and lidc_crops_test.
        split: "train", "val" or "test".

    Raises:
        UserError: for a missing folder, a split without images, an image that lacks the label map of one of the split's
            annotators, a label map without an image, and a patient in two splits.
    """

    num_classes = 2
    class_names = ("background", "nodule")
    image_channels = 1

    def __init__(self, path: Path, split: str) -> None:
        self.source, self.split = str(path), split
        self.crops = _find_crops(path / f"lidc_crops_{split}" / split)
        patients = {crop.patient for crop in self.crops}
        for other in set(SPLITS) - {split}:
            shared = patients & {folder.name for folder in path.glob(f"lidc_crops_{other}/{other}/images/*")}
            if shared:
                raise UserError(f"{path}: patient {min(shared)} is in both {split} and {other}; expected one split")

    def __len__(self) -> int:
        return len(self.crops)

    def __getitem__(self, index: int) -> dict[str, Any]:
        crop = self.crops[index]
        image, labels = _read(crop)
        return {
            "image": torch.from_numpy(image.astype(np.float32) * np.float32(2 / 255) - 1)[None],
            "labels": torch.from_numpy(labels),
            "name": f"{self.split}/{crop.patient}/{crop.image.stem}",
            "group": seed_from(crop.patient),
        }


def get_dataset(split: str, path: str = DEFAULT_PATH) -> LIDCCrops:
    """See `LIDCCrops`."""
    return LIDCCrops(expand_path(path), split)


def _find_crops(folder: Path) -> list[Crop]:
    for part in (folder / "images", folder / "gt"):
        if not part.is_dir():
            raise UserError(
                f"there is no folder {part}; set dataset_params.path to the folder of {folder.parent.name}, and choose "
                f"from the splits {', '.join(SPLITS)}"
            )
    labels = set(folder.glob("gt/*/*.png"))
    annotators = sorted({match[1] for path in labels if (match := re.search(r"_l(\d+)$", path.stem))}, key=int)
    crops = []
    for image in sorted(folder.glob("images/*/*.png"), key=lambda path: (path.parent.name, path.stem)):
        own = [folder / "gt" / image.parent.name / f"{image.stem}_l{annotator}.png" for annotator in annotators or "0"]
        missing = [path.name for path in own if path not in labels]
        if missing:
            raise UserError(f"{image} lacks {', '.join(missing)} in {own[0].parent}")
        labels.difference_update(own)
        crops.append(Crop(image, own))
    if not crops:
        raise UserError(f"{folder / 'images'} holds no images; expected <patient>/<slice>.png")
    if labels:
        raise UserError(
            f"{min(labels)} has no image; expected <slice>_l<annotator>.png for images/<patient>/<slice>.png"
        )
    return crops


def _read(crop: Crop) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """The middle of the image (128 x 128, 0 .. 255) and of its label maps (A x 128 x 128, classes 0 and 1)."""
    image = read_grey(crop.image)
    if min(image.shape) < SIDE:
        raise UserError(f"{crop.image} is {image.shape}; expected at least {SIDE} x {SIDE} pixels")
    labels = [read_grey(path) for path in crop.labels]
    for path, map_ in zip(crop.labels, labels, strict=True):
        if map_.shape != image.shape:
            raise UserError(f"{path} is {map_.shape}, its image {crop.image} {image.shape}: expected the same size")
        if other := set(np.unique(map_).tolist()) - {0, 1, 255}:
            raise UserError(f"{path} holds {min(other)}; expected 0 for background and 255 (or 1) for the lesion")
    top, left = ((length - SIDE) // 2 for length in image.shape)
    middle = slice(top, top + SIDE), slice(left, left + SIDE)
    return image[middle], np.stack([map_[middle] > 0 for map_ in labels]).astype(np.uint8)
