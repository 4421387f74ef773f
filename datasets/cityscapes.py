"""Cityscapes (Cordts et al., 2016): street scenes with one label map each, read by torchvision.datasets.Cityscapes.

Classes are the 19 train ids and, as the 20th (index 19), void: everything that the benchmark does not evaluate. Images
are resized bilinearly and ImageNet-normalised; label maps are resized by nearest neighbour. The test split's labels are
not public: evaluate on "val".
"""

import contextlib
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from pydantic import Field, ValidationError
from torch import Tensor
from torch.utils.data import Dataset
from torchvision import datasets as torchvision_datasets
from torchvision.transforms import InterpolationMode, v2
from tqdm import tqdm

from datasets.contract import SPLITS
from datasets.image_files import open_image, read_grey
from datasets.normalisation import Normalisation
from utils.config import Config, Size, validate_arguments
from utils.errors import UserError
from utils.logs import LOGGER
from utils.paths import expand_path, write_text

VOID = 19

_Source = torchvision_datasets.Cityscapes
_CLASSES = sorted((c for c in _Source.classes if 0 <= c.train_id < VOID), key=lambda c: c.train_id)
_NO_CLASS = 255
_TRAIN_IDS = np.full(256, _NO_CLASS, dtype=np.uint8)
for _class in _Source.classes:
    _TRAIN_IDS[_class.id % 256] = _class.train_id if 0 <= _class.train_id < VOID else VOID


class Cityscapes(Dataset[dict[str, Any]]):
    """One split, sorted by file name.

    Args:
        root: folder that contains leftImg8bit and gtFine.
        split: "train", "val" or "test".
        size: height and width of the resized images and label maps, in pixels.
        original_labels: whether items also have the label map at its original size.

    Raises:
        UserError: for a missing folder, image or annotation.
    """

    num_classes = VOID + 1
    image_channels = 3
    void_class = VOID
    max_annotators = 1
    class_names = (*(c.name for c in _CLASSES), "void")
    class_ids = (*(c.id for c in _CLASSES), 0)
    class_colours = (*(c.color for c in _CLASSES), (0, 0, 0))
    benchmark = "Cityscapes"
    image_mean = (0.485, 0.456, 0.406)  # of ImageNet
    image_std = (0.229, 0.224, 0.225)

    def __init__(self, root: Path, split: str, size: Sequence[int], original_labels: bool) -> None:
        self.source, self.split, self.root = str(root), split, root
        self.size, self.original_labels = list(size), original_labels
        self._files = _find_files(root, split)
        self.source_files = [file for pair in self._files for file in pair]
        self._normalisation = Normalisation.from_dataset(self)

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> dict[str, Any]:
        image_path, label_path = self._files[index]
        image, labels = open_image(image_path).convert("RGB"), _read_labels(label_path)
        if image.size[::-1] != labels.shape:
            raise UserError(f"{label_path} is {labels.shape}, its image {image.size[::-1]}: expected the same size")
        resized = v2.functional.resize(image, self.size, InterpolationMode.BILINEAR)
        item = {
            "image": self._normalisation.apply(v2.functional.pil_to_tensor(resized).float() / 255),
            "labels": self._resized(labels),
            "name": image_path.name.removesuffix("_leftImg8bit.png"),
        }
        if self.original_labels:
            item["original_labels"] = torch.from_numpy(labels)[None]
        return item

    def class_counts(self) -> Tensor:
        """Pixels of each class in the split at this size: int64, 20. Stored in a file in `root`,
        which is used as long as no annotation is replaced."""
        file = self.root / f"class_counts_{self.split}_{self.size[0]}x{self.size[1]}.json"
        stats = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for _, path in self._files]
        if file.is_file():
            with contextlib.suppress(OSError, ValidationError):
                stored = _Counts.model_validate_json(file.read_bytes())
                if stored.digest == _digest(stats, stored.counts):
                    return torch.tensor(stored.counts)
            LOGGER.warning("%s is damaged or belongs to other annotations; counting again", file)
        counts = torch.zeros(self.num_classes, dtype=torch.int64)
        for _, path in tqdm(self._files, desc="counting classes", unit="image", leave=False):
            counts += self._resized(_read_labels(path)).flatten().bincount(minlength=self.num_classes)
        with contextlib.suppress(UserError):  # a read-only folder: count again next time
            write_text(file, _Counts(counts=counts.tolist(), digest=_digest(stats, counts.tolist())).model_dump_json())
        return counts

    def _resized(self, labels: NDArray[np.uint8]) -> Tensor:
        resized = v2.functional.resize(Image.fromarray(labels), self.size, InterpolationMode.NEAREST)
        return v2.functional.pil_to_tensor(resized)


class _Counts(Config):
    """The file of class counts."""

    counts: list[Annotated[int, Field(ge=0, lt=2**63)]] = Field(min_length=VOID + 1, max_length=VOID + 1)
    digest: str


def _digest(stats: Any, counts: list[int]) -> str:
    """Of the annotations as the file system describes them, and their counts."""
    return hashlib.sha256(json.dumps([stats, counts]).encode()).hexdigest()


@validate_arguments
def get_dataset(
    split: str, path: str = "${TMPDIR}/cityscapes/", size: Size = (128, 256), original_labels: bool = False
) -> Cityscapes:
    """A split of the Cityscapes folder `path`; see `Cityscapes` for the other arguments."""
    return Cityscapes(expand_path(path), split, size, original_labels)


def _find_files(root: Path, split: str) -> list[tuple[Path, Path]]:
    """Images and annotations of a split, sorted."""
    for folder in (root / "leftImg8bit" / split, root / "gtFine" / split):
        if not folder.is_dir():
            raise UserError(
                f"there is no folder {folder}; set dataset_params.path to the folder of leftImg8bit and gtFine, and "
                f"choose from the splits {', '.join(SPLITS)}"
            )
    try:
        source = _Source(str(root), split, mode="fine", target_type="semantic")
    except (RuntimeError, ValueError, OSError) as error:
        raise UserError(f"{root} cannot be read as Cityscapes: {error}") from error
    files = sorted((Path(image), Path(label)) for image, (label,) in zip(source.images, source.targets, strict=True))
    for image, label in files:
        if not label.is_file():
            raise UserError(f"{image} has no annotation; expected {label}")
    return files


def _read_labels(path: Path) -> NDArray[np.uint8]:
    """The class of each pixel: uint8, H x W."""
    ids = read_grey(path)
    labels = _TRAIN_IDS[ids]
    wrong = np.argwhere(labels == _NO_CLASS)
    if len(wrong):
        at = tuple(wrong[0].tolist())
        raise UserError(f"{path}: id {ids[at]} at {at}; expected the ids of Cityscapes, 0 .. 33")
    return labels
