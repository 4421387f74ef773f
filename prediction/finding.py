"""Which files are images, and the names of their results."""

import glob
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from prediction.reading import SUFFIXES, is_dicom
from utils.errors import UserError
from utils.paths import expand_path


def find_images(arguments: Iterable[str], exclude: Path) -> list[Path]:
    """The files that the arguments name, in that order and sorted within each argument; duplicates are dropped.

    Arguments are files, folders (searched recursively) and glob patterns; files in the folder of results `exclude` are
    not images. Raises UserError for an argument that matches no image.
    """
    found: dict[Path, Path] = {}
    for argument in arguments:
        paths = [path for path in _matches(argument) if exclude.resolve() not in path.resolve().parents]
        if not paths:
            raise UserError(
                f"no image in {argument}; expected PNG, JPEG, TIFF, NPY or DICOM files, or a folder or pattern of them"
            )
        for path in paths:
            found.setdefault(path.resolve(), path)
    return list(found.values())


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


def _matches(argument: str) -> list[Path]:
    path = expand_path(argument)
    if path.is_dir():
        return sorted(inner for inner in path.rglob("*") if _is_image(inner, path))
    if path.exists():
        return [path]
    if glob.has_magic(argument):
        return sorted(Path(match) for match in glob.glob(str(path), recursive=True) if Path(match).is_file())
    raise UserError(f"there is no file or folder {path}")


def _is_image(path: Path, folder: Path) -> bool:
    hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
    return not hidden and path.is_file() and (path.suffix.lower() in SUFFIXES or is_dicom(path))


def _choices(path: Path) -> list[str]:
    stem, suffix = (path.stem, path.suffix) if path.suffix.lower() in SUFFIXES else (path.name, "")
    folder = path.resolve().parent.name
    return [stem, f"{folder}_{stem}", f"{folder}_{stem}_{suffix[1:]}".rstrip("_")]
