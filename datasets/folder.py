"""Your own data in a folder of image files.

The layout, for the splits train, val and test:

    <split>/images/<name>.<ext>
    <split>/labels/<name>/<annotator>.<ext>, or <split>/labels/<name>.<ext> for one annotator

All formats of `datasets.formats` are read. The number of annotators may differ between images. In images/<patient>/
<name>.<ext>, the first folder is the patient, whose images are resampled together in confidence intervals and must be
in one split.
"""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
import torch
from pydantic import Field, model_validator
from torch.utils.data import Dataset
from torchvision.transforms.v2.functional import center_crop
from tqdm import tqdm

from datasets.contract import SPLITS
from datasets.formats import SUFFIXES, intensities, is_image, read_label_map, to_channels, without_suffix
from datasets.normalisation import Normalisation
from utils.config import Config, NonNegative, Range, Size
from utils.errors import UserError
from utils.noise import seed_from
from utils.paths import expand_path

_LAYOUT = "<split>/images/<name>.png and <split>/labels/<name>/<annotator>.png or <split>/labels/<name>.png"


class FolderConfig(Config):
    """The parameters of the dataset."""

    path: str = Field(description="folder of the splits")
    size: Size | None = Field(
        None,
        description="height and width to which images are cropped, or padded with black and class 0, on all sides "
        "equally; `null`: all images have the same size",
    )
    image_channels: Literal[1, 3] | None = Field(
        None, description="1 or 3: colours become grey, or grey is repeated; `null`: all images have the same channels"
    )
    window: Range | None = Field(
        None,
        description="values of the image files that become black and white, such as [-1000, 400] for CT; `null`: as in "
        "[prediction](prediction.md#formats-and-intensities)",
    )
    class_ids: list[Annotated[int, Field(ge=0, le=255)]] | None = Field(
        None,
        min_length=2,
        description="value of each class in the label maps, background first; `null`: 0 .. C-1, or 0 and 255, found by "
        "reading all of them",
    )
    class_names: list[str] | None = Field(None, description="C names; `null`: numbers")
    void_class: NonNegative | None = Field(None, description="number of the class that is not evaluated; `null`: none")

    @model_validator(mode="after")
    def _check(self) -> "FolderConfig":
        if self.window is not None and self.window[0] >= self.window[1]:
            raise ValueError(f"window {list(self.window)} is not a range; the first value is below the second")
        if self.class_ids is not None and len(set(self.class_ids)) < len(self.class_ids):
            raise ValueError(f"class_ids {self.class_ids} holds a value twice")
        return self


class FolderDataset(Dataset[dict[str, Any]]):
    """One split, sorted by name. Images are scaled to [-1, 1].

    Raises UserError for missing folders, images without label maps and the reverse, other files, a patient in two
    splits, unexpected values in label maps, and images that differ in size or channels if the parameters do not say
    what to do.
    """

    def __init__(self, split: str, config: FolderConfig) -> None:
        root = expand_path(config.path)
        self.source, self._config = str(root), config
        self._items = _find_items(root, split)
        splits = [other for other in (*SPLITS, split) if (root / other / "images").is_dir()]
        self._first_image = next(iter(_image_files(root / splits[0] / "images").values()))
        self.image_channels = config.image_channels or intensities(self._first_image).shape[-1]
        self.class_ids = config.class_ids or _find_class_ids(root, splits, has_size=config.size is not None)
        self.num_classes = len(self.class_ids)
        self.class_names, self.void_class = config.class_names, config.void_class
        self._normalisation = Normalisation.from_dataset(self)
        self._classes = np.full(256, -1, dtype=np.int16)
        self._classes[self.class_ids] = range(self.num_classes)
        self.max_annotators = max(len(item.labels) for item in self._items)
        self.source_files = [path for item in self._items for path in (item.image, *item.labels)]
        _check_classes(self.num_classes, config)

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: int) -> dict[str, Any]:
        name, path, label_paths = self._items[index]
        values, channels = intensities(path, self._config.window), self.image_channels
        if self._config.image_channels is None and values.shape[-1] != channels:
            raise UserError(
                f"{path} has {values.shape[-1]} channels, {self._first_image} has {channels}; to convert images to "
                "grey or RGB, set dataset_params.image_channels to 1 or 3"
            )
        image = torch.from_numpy(to_channels(values, channels, path).astype(np.float32)).movedim(-1, 0)
        maps = [read_label_map(label_path) for label_path in label_paths]
        for label_path, map_ in zip(label_paths, maps, strict=True):
            if map_.shape != values.shape[:2]:
                raise UserError(f"{label_path} is {map_.shape}, its image {path} {values.shape[:2]}; expected one size")
            if (wrong := np.argwhere(self._classes[map_] < 0)).size:
                at = tuple(wrong[0].tolist())
                raise UserError(f"{label_path}: value {map_[at]} at {at}; expected those of classes: {self.class_ids}")
        labels = torch.from_numpy(self._classes[np.stack(maps)].astype(np.uint8))
        if self._config.size is not None:
            image, labels = (center_crop(tensor, list(self._config.size)) for tensor in (image, labels))
        printable = name.as_posix().encode(errors="replace").decode()
        item = {"image": self._normalisation.apply(image).contiguous(), "labels": labels, "name": printable}
        return item | ({"group": seed_from(name.parts[0])} if len(name.parts) > 1 else {})


def get_dataset(split: str, **params: Any) -> FolderDataset:
    """A split of a folder; `params` are those of `FolderConfig`."""
    return FolderDataset(split, FolderConfig(**params))


class _Item(NamedTuple):
    name: Path  # relative, without suffix
    image: Path
    labels: list[Path]


def _find_items(root: Path, split: str) -> list[_Item]:
    """The images of a split, each with its label maps, sorted."""
    folder = root / split
    for part in ("images", "labels"):
        if not (folder / part).is_dir():
            raise UserError(f"there is no folder {folder / part}; dataset_params.path is the folder of {_LAYOUT}")
    images, labels = _image_files(folder / "images"), _image_files(folder / "labels")
    items = {name: _Item(name, path, []) for name, path in images.items()}
    for name, path in labels.items():
        item = items.get(name) or items.get(name.parent)
        if item is None:
            raise UserError(f"{path} has no image; expected {_LAYOUT}")
        item.labels.append(path)
    missing = [item for item in items.values() if not item.labels]
    if missing:
        expected = folder / "labels" / missing[0].name
        raise UserError(
            f"{missing[0].image} has no label map ({len(missing)} of the images of {split}); expected "
            f"{expected}.png or {expected}/<annotator>.png"
        )
    patients = {name.parts[0] for name in items if len(name.parts) > 1}
    for other in set(SPLITS) - {split}:
        shared = patients & {path.name for path in (root / other / "images").glob("*/")}
        if shared:
            raise UserError(
                f"{root}: {min(shared)} is a folder of images in both {split} and {other}; such a folder holds the "
                "images of one patient, who must be in one split"
            )
    return list(items.values())


def _image_files(folder: Path) -> dict[Path, Path]:
    """The files in a folder by their relative path without suffix, sorted. Raises UserError for one that is no image,
    unless it is hidden."""
    found: dict[Path, Path] = {}
    for path in sorted(folder.rglob("*")):
        relative = path.relative_to(folder)
        if path.is_dir() or any(part.startswith(".") for part in relative.parts):
            continue
        if not is_image(path):
            raise UserError(f"{path} is not an image; expected {', '.join(SUFFIXES)}, or DICOM without suffix")
        name = without_suffix(relative)
        if name in found:
            raise UserError(f"{found[name]} and {path} have the same name; expected one of them")
        found[name] = path
    if not found:
        raise UserError(f"{folder} holds no images; expected {_LAYOUT}")
    return found


def _find_class_ids(root: Path, splits: Sequence[str], has_size: bool) -> list[int]:
    """The value of each class in the label maps of all splits, so that every split has the same classes."""
    paths = [path for split in splits for path in _image_files(root / split / "labels").values()]
    values, sizes = _survey(tuple((path, path.stat().st_mtime_ns) for path in paths))
    if len(sizes) > 1 and not has_size:
        (size, path), (other_size, other_path) = list(sizes.items())[:2]
        raise UserError(
            f"{path} is {size}, {other_path} {other_size}; if their images have these sizes, too, set "
            f"dataset_params.size, such as {list(size)}, to which images are then cropped or padded"
        )
    if values in ([255], [0, 255]):
        return [0, 255]
    classes = list(range(max(2, values[-1] + 1)))
    if not set(classes) <= {0, 1, *values}:
        raise UserError(
            f"{root}: the label maps hold the values {values}; expected 0 .. C-1, or 0 and 255. If each is a class, "
            f"set dataset_params.class_ids={values}, with the background first"
        )
    return classes


@functools.cache
def _survey(files: tuple[tuple[Path, int], ...]) -> tuple[list[int], dict[tuple[int, ...], Path]]:
    """The values in label maps, sorted, and their sizes with an example of each; the times of modification are only
    there to make the files read again when they change."""
    found, sizes = np.zeros(256, dtype=bool), dict[tuple[int, ...], Path]()
    for path, _ in tqdm(files, desc="reading label maps", unit="file", leave=False):
        map_ = read_label_map(path)
        found |= np.bincount(map_.ravel(), minlength=256) > 0
        sizes.setdefault(map_.shape, path)
    return np.flatnonzero(found).tolist(), sizes


def _check_classes(num_classes: int, config: FolderConfig) -> None:
    if config.class_names is not None and len(config.class_names) != num_classes:
        raise UserError(f"dataset_params.class_names has {len(config.class_names)} names for {num_classes} classes")
    if config.void_class is not None and config.void_class >= num_classes:
        raise UserError(f"dataset_params.void_class is {config.void_class}; expected 0 .. {num_classes - 1}")
