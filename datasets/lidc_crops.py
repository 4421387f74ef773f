"""LIDCv2: the png crops of the Hierarchical Probabilistic U-Net (Kohl et al., 2019, arXiv 1905.13077).

The folders, with 180 x 180 pixels per image:

    lidc_crops_{split}/{split}/images/<patient>/<slice>.png
    lidc_crops_{split}/{split}/gt/<patient>/<slice>_l{0..3}.png

for the splits train, val and test; `_l{k}` is the label map of annotator k. Images and label maps are cropped to the
128 x 128 pixels in the middle or, in training with `random_crop`, to random ones.
"""

import re
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from datasets.contract import SPLITS
from datasets.image_files import read_grey
from utils.config import validate_arguments
from utils.errors import UserError
from utils.noise import derive_key, seed_from, uniform
from utils.paths import expand_path

SIDE = 128


class LIDCCrops(Dataset[dict[str, Any]]):
    """One split of the folder `path`, sorted by patient and slice. Images are scaled to [-1, 1]; `whole` ones are not
    cropped.

    Raises UserError for a missing folder, a split without images, an image that lacks the label map of one of the
    split's annotators, a label map without an image, and a patient in two splits.
    """

    num_classes = 2
    class_names = ("background", "nodule")
    benchmark = "LIDCv2"
    image_channels = 1

    def __init__(self, path: Path, split: str, whole: bool = False) -> None:
        self.source, self.split, self.whole = str(path), split, whole
        self._files = _find_files(path / f"lidc_crops_{split}" / split)
        self.source_files = [file for image, labels in self._files for file in (image, *labels)]
        patients = {image.parent.name for image, _ in self._files}
        for other in set(SPLITS) - {split}:
            shared = patients & {folder.name for folder in path.glob(f"lidc_crops_{other}/{other}/images/*")}
            if shared:
                raise UserError(f"{path}: patient {min(shared)} is in both {split} and {other}; expected one split")

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> dict[str, Any]:
        path, label_paths = self._files[index]
        image, labels = _read(path, label_paths, self.whole)
        patient = path.parent.name
        return {
            "image": torch.from_numpy(image.astype(np.float32) * np.float32(2 / 255) - 1)[None],
            "labels": torch.from_numpy(labels),
            "name": f"{self.split}/{patient}/{path.stem}",
            "group": seed_from(patient),
        }


@validate_arguments
def get_dataset(split: str, path: str = "${TMPDIR}", whole: bool = False) -> LIDCCrops:
    """A split of the folder `path`. With `whole`, the images of "train" keep all of their pixels, for `random_crop`."""
    return LIDCCrops(expand_path(path), split, whole and split == "train")


def random_crop(images: Tensor, labels: Tensor, keys: Tensor) -> tuple[Tensor, Tensor]:
    """An augmentation: 128 x 128 pixels at a random place, the protocol of the Hierarchical Probabilistic U-Net."""
    spare = torch.tensor(images.shape[-2:], device=keys.device) - SIDE + 1
    corner = (uniform(derive_key(keys, "corner"), (2,)).double() * spare).long()
    rows, columns = (start[:, None] + torch.arange(SIDE, device=keys.device) for start in corner.unbind(1))
    place = torch.arange(len(keys), device=keys.device)[:, None, None], slice(None), rows[:, :, None], columns[:, None]
    return images[place].movedim(-1, 1), labels[place].movedim(-1, 1)


def _find_files(folder: Path) -> list[tuple[Path, list[Path]]]:
    """The images of a split, each with its label maps, sorted by annotator."""
    for part in (folder / "images", folder / "gt"):
        if not part.is_dir():
            raise UserError(
                f"there is no folder {part}; set dataset_params.path to the folder of {folder.parent.name}, and choose "
                f"from the splits {', '.join(SPLITS)}"
            )
    labels = set(folder.glob("gt/*/*.png"))
    annotators = sorted({match[1] for path in labels if (match := re.search(r"_l(\d+)$", path.stem))}, key=int)
    files = []
    for image in sorted(folder.glob("images/*/*.png"), key=lambda path: (path.parent.name, path.stem)):
        own = [folder / "gt" / image.parent.name / f"{image.stem}_l{annotator}.png" for annotator in annotators or "0"]
        missing = [path.name for path in own if path not in labels]
        if missing:
            raise UserError(f"{image} lacks {', '.join(missing)} in {own[0].parent}")
        labels.difference_update(own)
        files.append((image, own))
    if labels:
        raise UserError(
            f"{min(labels)} has no image; expected <slice>_l<annotator>.png for images/<patient>/<slice>.png"
        )
    return files


def _read(path: Path, label_paths: list[Path], whole: bool) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """The middle of the image (128 x 128, 0 .. 255) and of its label maps (A x 128 x 128, classes 0 and 1), or all."""
    image, labels = read_grey(path), [read_grey(label_path) for label_path in label_paths]
    if min(image.shape) < SIDE:
        raise UserError(f"{path} is {image.shape}; expected at least {SIDE} x {SIDE} pixels")
    for label_path, map_ in zip(label_paths, labels, strict=True):
        if map_.shape != image.shape:
            raise UserError(f"{label_path} is {map_.shape}, its image {path} {image.shape}: expected the same size")
        if other := set(np.unique(map_).tolist()) - {0, 1, 255}:
            raise UserError(f"{label_path} holds {min(other)}; expected 0 for background and 255 (or 1) for the lesion")
    top, left = ((length - SIDE) // 2 for length in image.shape)
    middle = (slice(None), slice(None)) if whole else (slice(top, top + SIDE), slice(left, left + SIDE))
    return image[middle], np.stack([map_[middle] > 0 for map_ in labels]).astype(np.uint8)
