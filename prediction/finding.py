"""Which files are images, and the names of their results."""

import glob
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from datasets.dicom import is_dicom, series_of
from datasets.formats import is_image, without_suffix
from datasets.nifti import is_nifti
from prediction.outputs import AREAS
from utils.errors import UserError
from utils.paths import expand_path, safe_name

SUMMARY = "summary.csv"
"""The file in the folder of results that lists the areas of all images."""


class Item(NamedTuple):
    """An image, or the files of a volume."""

    files: list[Path]
    is_volume: bool

    @property
    def path(self) -> Path:
        """The file, or the folder of a series."""
        return self.files[0] if len(self.files) == 1 else self.files[0].parent


class Found(NamedTuple):
    """Images, and the other files that were in their folders."""

    images: list[Path]
    others: list[Path]


def find_images(arguments: Iterable[str], out: Path) -> Found:
    """The files that the arguments name, in that order and sorted within each argument; duplicates are dropped.

    Arguments are files, folders (searched recursively) and glob patterns. Hidden files, results of earlier predictions
    and files in the folder of results `out`, if it is inside a folder that is searched, are neither images nor others.
    Raises UserError for an argument that matches no image.
    """
    found: dict[Path, Path] = {}
    others: list[Path] = []
    for argument in arguments:
        paths, ignored = _matches(argument, out.resolve())
        others += ignored
        if not paths:
            raise UserError(
                f"no image in {argument}; expected PNG, JPEG, TIFF, BMP, WebP, GIF, NPY, DICOM or NIfTI files, or a "
                "folder or pattern of them"
            )
        for path in paths:
            found.setdefault(path.resolve(), path)
    return Found(list(found.values()), others)


def group_volumes(paths: Sequence[Path], dicom: bool) -> list[Item]:
    """NIfTI files as volumes, and with `dicom`, each DICOM file of several frames and all files of a series likewise;
    all others as images."""
    series: dict[str, list[Path]] = {}
    for path in paths:
        series.setdefault(series_of(path) if dicom and is_dicom(path) else str(path.resolve()), []).append(path)
    return [Item(files, is_nifti(files[0]) or (dicom and is_dicom(files[0]))) for files in series.values()]


def output_names(paths: Sequence[Path], reserved: Iterable[str] = ()) -> list[str]:
    """A name for the results of each image, unique even if case is ignored: its file's name without the suffix.

    If several images share it, the folder's name is prepended, then the suffix appended, then a number.
    """
    choices = [_choices(path) for path in paths]
    wanted = Counter(choice.casefold() for own in choices for choice in dict.fromkeys(own))
    used, names = {name.casefold() for name in reserved}, []
    for own in choices:
        free = [choice for choice in own if wanted[choice.casefold()] == 1 and choice.casefold() not in used]
        name, number = (free or own)[0 if free else -1], 2
        while name.casefold() in used:
            name, number = f"{own[-1]}_{number}", number + 1
        used.add(name.casefold())
        names.append(name)
    return names


def _matches(argument: str, out: Path) -> Found:
    path = expand_path(argument)
    if path.is_dir():
        files = sorted(inner for inner in path.rglob("*") if _is_data(inner, path, out))
        images = [file for file in files if is_image(file)]
        return Found(images, sorted(set(files) - set(images)))
    if path.exists():
        return Found([path], [])
    if glob.has_magic(argument):
        matches = (Path(match) for match in glob.glob(str(path), recursive=True))
        return Found(sorted(match for match in matches if _is_data(match, None, out)), [])
    raise UserError(f"there is no file or folder {path}")


def _is_data(path: Path, folder: Path | None, out: Path) -> bool:
    """Whether a file is neither hidden nor the result of a prediction."""
    if folder is not None:
        if any(part.startswith(".") for part in path.relative_to(folder).parts):
            return False
        if out in path.resolve().parents and folder.resolve() in out.parents:
            return False
    results = (path.parent, path.parent.parent) if path.parent.name == "samples" else (path.parent,)
    return path.is_file() and path.name != SUMMARY and not any((parent / AREAS).exists() for parent in results)


def _choices(path: Path) -> list[str]:
    stem = without_suffix(path).name
    suffix = path.name.removeprefix(stem)
    folder = path.resolve().parent.name
    return [safe_name(name) for name in (stem, f"{folder}_{stem}", f"{folder}_{stem}_{suffix[1:]}".rstrip("_"))]
