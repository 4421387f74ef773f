"""Your own images and label maps as files, without code.

    <path>/<split>/images/<name>.png
    <path>/<split>/labels/<name>.png               one rater
    <path>/<split>/labels/<name>/<rater>.png       several; their number may differ between images

for the splits train, val and test. Images are PNG, JPEG, TIFF, BMP, WebP, GIF, NPY or DICOM files, see
`datasets.reading`; label maps likewise, but not compressed with loss. The values of a label map are its classes 0 ..
C-1 (of a palette, the indices); C is the largest of all splits plus one.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset
from tqdm import tqdm

from datasets.contract import SPLITS
from datasets.reading import SUFFIXES, intensities, label_map
from utils.errors import UserError
from utils.paths import expand_path

_MAX_CLASSES = 256


class Case(NamedTuple):
    """An image and its label maps, sorted by rater."""

    image: Path
    labels: list[Path]


class Folder(Dataset[dict[str, Any]]):
    """One split, sorted by name. Images are scaled to [-1, 1].

    All label maps are read once to find the classes and to compare the sizes.

    Args:
        path: the folder of the splits.
        split: "train", "val" or "test".
        size: height and width to which images and label maps are cropped around their middle, or padded with intensity
            0 and class 0; by default all must have the same size.
        label_values: the values of the classes in the label maps, such as [0, 255]; by default 0 .. C-1.
        window: values of the images that become black and white, such as [-1000, 400] for CT in Hounsfield units.
        class_names: C names.

    Raises:
        UserError: for a missing folder, an image without label map, a label map without image, files that cannot be
            read or whose sizes differ, and values that are no class.
    """

    def __init__(
        self,
        path: Path,
        split: str,
        size: Sequence[int] | None = None,
        label_values: Sequence[int] | None = None,
        window: Sequence[float] | None = None,
        class_names: Sequence[str] | None = None,
    ) -> None:
        self.source, self.split = str(path), split
        if size is not None and not (_is_pair(size) and all(type(side) is int and side > 0 for side in size)):
            raise UserError(f"dataset_params.size is {size}; expected height and width, such as [128, 128]")
        if window is not None and not (_is_pair(window) and window[0] < window[1]):
            raise UserError(f"dataset_params.window is {window}; expected LOW and HIGH, such as [-1000, 400]")
        self._size = None if size is None else (size[0], size[1])
        self._window = None if window is None else (window[0], window[1])
        self._cases = find_cases(path, split)
        self._values = _found_values(path) if label_values is None else sorted(set(label_values))
        if not 2 <= len(self._values) <= _MAX_CLASSES:
            raise UserError(f"dataset_params.label_values are {self._values}; expected 2 to {_MAX_CLASSES} values")
        self.num_classes = len(self._values)
        if class_names is not None:
            if len(class_names) != self.num_classes:
                raise UserError(
                    f"dataset_params.class_names has {len(class_names)} names for {self.num_classes} classes"
                )
            self.class_names = list(class_names)
        self.image_channels = intensities(self._cases[0].image, self._window).shape[2] if self._cases else 1
        if self._size is None:
            self._check_sizes()

    def __len__(self) -> int:
        return len(self._cases)

    def __getitem__(self, index: int) -> dict[str, Any]:
        case = self._cases[index]
        image = intensities(case.image, self._window).astype(np.float32)
        if image.shape[2] != self.image_channels:
            raise UserError(
                f"{case.image} has {image.shape[2]} channels, but {self._cases[0].image} has {self.image_channels}"
            )
        maps = [self._classes(path, image.shape[:2]) for path in case.labels]
        pixels = torch.from_numpy(np.ascontiguousarray(image)).movedim(-1, 0) * 2 - 1
        labels = torch.from_numpy(np.stack(maps))
        if self._size is not None:
            pixels, labels = crop_or_pad(pixels, self._size, -1), crop_or_pad(labels, self._size, 0)
        return {"image": pixels.contiguous(), "labels": labels.contiguous(), "name": f"{self.split}/{case.image.stem}"}

    def _classes(self, path: Path, size: tuple[int, ...]) -> NDArray[np.uint8]:
        values = label_map(path)
        if values.shape != size:
            raise UserError(f"{path} is {values.shape}, its image {size}: expected the same height and width")
        classes = np.searchsorted(self._values, values).clip(max=self.num_classes - 1)
        wrong = values[np.asarray(self._values)[classes] != values]
        if len(wrong):
            raise UserError(f"{path} holds {wrong[0]}; expected the values of the classes, {_listed(self._values)}")
        return classes.astype(np.uint8)

    def _check_sizes(self) -> None:
        sizes: dict[tuple[int, ...], Path] = {}
        for case in self._cases:
            sizes.setdefault(label_map(case.labels[0]).shape, case.labels[0])
        if len(sizes) > 1:
            (one, path), (other, other_path) = list(sizes.items())[:2]
            raise UserError(
                f"{path} is {one}, but {other_path} {other}; set dataset_params.size, such as {list(max(sizes))}, to "
                "crop or pad images and label maps"
            )


def get_dataset(
    split: str,
    path: str,
    size: Sequence[int] | None = None,
    label_values: Sequence[int] | None = None,
    window: Sequence[float] | None = None,
    class_names: Sequence[str] | None = None,
) -> Folder:
    """A split of the folder `path`; see `Folder`."""
    return Folder(expand_path(path), split, size, label_values, window, class_names)


def find_cases(path: Path, split: str) -> list[Case]:
    """The images of a split with their label maps. Raises UserError as `Folder`."""
    folder = path / split
    for part in (folder / "images", folder / "labels"):
        if not part.is_dir():
            raise UserError(
                f"there is no folder {part}; set dataset_params.path to the folder of the splits, and choose from "
                f"{', '.join(SPLITS)}"
            )
    images, labels = _by_name(folder / "images"), _by_name(folder / "labels")
    cases = []
    for name, image in images.items():
        inside = folder / "labels" / name
        if inside.is_dir():
            if name in labels:
                raise UserError(f"{image} has both the label map {labels[name]} and the folder {inside}; expected one")
            own = list(_by_name(inside).values())
        else:
            own = [labels[name]] if name in labels else []
        if not own:
            raise UserError(f"{image} has no label map; expected {inside}.png, or {inside} with one for each rater")
        cases.append(Case(image, own))
    folders = {entry.name: entry for entry in (folder / "labels").iterdir() if entry.is_dir()}
    for name, entry in sorted({**labels, **folders}.items()):
        if name not in images:
            raise UserError(f"{entry} has no image; expected {folder / 'images' / name}.png")
    return cases


def crop_or_pad(maps: Tensor, size: tuple[int, int], value: float) -> Tensor:
    """The middle of ... x H x W, or the whole with `value` around it, so that it has this height and width.

    >>> crop_or_pad(torch.arange(4)[None, None], (1, 2), 0), crop_or_pad(torch.arange(2)[None, None], (1, 4), 9)
    (tensor([[[1, 2]]]), tensor([[[9, 0, 1, 9]]]))
    """
    for axis, length in zip((-2, -1), size, strict=True):
        surplus = maps.shape[axis] - length
        if surplus > 0:
            maps = maps.narrow(axis, surplus // 2, length)
    height, width = size[0] - maps.shape[-2], size[1] - maps.shape[-1]
    around = (width // 2, width - width // 2, height // 2, height - height // 2)
    return torch.nn.functional.pad(maps, around, value=value)


def _by_name(folder: Path) -> dict[str, Path]:
    """The image files of a folder by their names without suffix, sorted. Raises UserError for two of one name."""
    files: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.is_file() and path.suffix.lower() in SUFFIXES and not path.name.startswith("."):
            if path.stem in files:
                raise UserError(f"{files[path.stem]} and {path} have the same name; expected one file for each")
            files[path.stem] = path
    return files


def _found_values(path: Path) -> list[int]:
    """Values 0 .. C-1 up to the largest in the label maps of all splits."""
    cases = [case for split in SPLITS if (path / split).is_dir() for case in find_cases(path, split)]
    found: set[int] = set()
    for case in tqdm(cases, desc="reading label maps", unit="image", leave=False, disable=len(cases) < 1000):
        for file in case.labels:
            found |= set(np.unique(label_map(file)).tolist())
    values = sorted(found | {0, 1})
    if values != list(range(len(values))):
        raise UserError(
            f"the label maps in {path} hold {_listed(sorted(found))}; expected classes 0 .. C-1. If these are the "
            f"classes, set dataset_params.label_values=[{_listed(sorted(found))}]"
        )
    return values


def _is_pair(values: Any) -> bool:
    return (
        isinstance(values, list | tuple) and len(values) == 2 and all(type(value) in (int, float) for value in values)
    )


def _listed(values: Sequence[int]) -> str:
    return ", ".join(map(str, values[:10])) + (", ..." if len(values) > 10 else "")
