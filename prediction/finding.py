"""Which files hold images, and what their results are called."""

import glob
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from prediction.dicom import is_dicom
from prediction.reading import SUFFIXES
from utils.errors import UserError
from utils.paths import expand_path

KINDS = "PNG, JPEG, TIFF, NPY or DICOM"


def find_images(arguments: Iterable[str], left_out: Path) -> list[Path]:
    """The files that arguments name, in their order and sorted within each; none twice.

    Args:
        arguments: files, folders (searched with all folders in them) and patterns.
        left_out: a folder whose files are results, and no images.

    Raises:
        UserError: for an argument without any.
    """
    found: dict[Path, Path] = {}
    for argument in arguments:
        some = [path for path in _named_by(argument) if left_out.resolve() not in path.resolve().parents]
        if not some:
            raise UserError(f"no image in {argument}; expected {KINDS} files, or a folder or a pattern of them")
        for path in some:
            found.setdefault(path.resolve(), path)
    return list(found.values())


def output_names(paths: Sequence[Path], taken: Iterable[str] = ()) -> list[str]:
    """A name for each image, all different, in upper or lower case: that of its file without the suffix.

    Where several have it, the folder's name is put in front, then the suffix behind, then a number.
    """
    choices = [_choices(path) for path in paths]
    wanted = Counter(choice.casefold() for own in choices for choice in dict.fromkeys(own))
    used, names = {name.casefold() for name in taken}, []
    for own in choices:
        free = [choice for choice in own if wanted[choice.casefold()] == 1 and choice.casefold() not in used]
        name, number = (free or own)[0 if free else -1], 2
        while name.casefold() in used:
            name, number = f"{own[-1]}_{number}", number + 1
        used.add(name.casefold())
        names.append(name)
    return names


def _named_by(argument: str) -> list[Path]:
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
