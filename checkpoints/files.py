"""Checkpoint files: written atomically, read without executing anything that they contain.

A run folder keeps the newest checkpoint, `last.pt`, and the one before, `previous.pt`. Every checkpoint carries a
digest of its contents, which is verified on reading.
"""

import hashlib
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from checkpoints.contents import Contents
from checkpoints.torch_files import read_torch_file
from datasets.cityscapes import Cityscapes
from utils.config import validate
from utils.errors import UserError, corrupt_file_as_user_error
from utils.logs import LOGGER
from utils.paths import expand_path, write_atomically
from utils.plain import check_plain

FORMAT_VERSION = 2
"""Incremented when older software could not read a file; `upgrade` converts older files."""

LAST, PREVIOUS = "last.pt", "previous.pt"

_ROOT = Path(__file__).resolve().parents[1]
SHIPPED_WEIGHTS = _ROOT / "weights"
"""The folder of the weights that come with this software."""
_KIND = "ccdm"
_REQUIRED = ("settings", "network", "process", "model", "average", "step")


def save_checkpoint(path: Path, contents: Mapping[str, Any]) -> None:
    """Write `contents` (state dicts, numbers, text and containers of them) to `path`, atomically. Raises UserError if
    the file cannot be written."""
    missing = [name for name in _REQUIRED if name not in contents]
    if missing:
        raise KeyError(f"a checkpoint needs {missing}")
    whole = {**contents, "kind": _KIND, "format_version": FORMAT_VERSION}
    whole["digest"] = digest(whole)

    def write(temporary: Path) -> None:
        try:
            torch.save(whole, temporary)
        except RuntimeError as error:  # how PyTorch reports a full disk
            raise UserError(f"{path} cannot be written, is the disk full? {_first_line(error)}") from error

    write_atomically(path, write, _previous(path))


def copy_checkpoint(source: Path, path: Path) -> None:
    """Give a checkpoint that was just written another name: a hard link, which takes neither time nor space, or a copy
    where the file system has none. Raises UserError if the file cannot be written."""

    def link(temporary: Path) -> None:
        try:
            os.link(source, temporary)
        except OSError:
            shutil.copyfile(source, temporary)

    write_atomically(path, link, _previous(path))


def _previous(path: Path) -> Path | None:
    return path.with_name(PREVIOUS) if path.name == LAST else None


def newest_intact(folder: Path) -> Path | None:
    """The newest undamaged checkpoint of a run folder; None if the folder has no checkpoints. Raises UserError if all
    of them are damaged: only the user can decide to start again and overwrite them."""
    damaged = []
    for path in (folder / LAST, folder / PREVIOUS):
        if path.exists():
            try:
                load_checkpoint(path)
                return path
            except UserError as error:
                LOGGER.warning("skipping %s", error)
                damaged.append(str(error))
    if damaged:
        raise UserError(f"{folder} has no undamaged checkpoint; remove them to start again. {'; '.join(damaged)}")
    return None


def digest(contents: Mapping[str, Any]) -> str:
    """A digest of all tensors, numbers and texts with their names and types; an entry `digest` is ignored."""
    hasher = hashlib.sha256()
    _absorb(hasher, {name: value for name, value in contents.items() if name != "digest"})
    return hasher.hexdigest()


def load_checkpoint(path: str | Path) -> dict[str, Any]:
    """The contents of a checkpoint in the current format, on the CPU. Raises UserError for a file that is missing,
    damaged, not a checkpoint of this software, or of a later version."""
    path = expand_path(path)
    return checked_checkpoint(path, read_torch_file(path))


def is_checkpoint(contents: Any) -> bool:
    """Whether contents are those of a checkpoint of this software, in any version."""
    return isinstance(contents, dict) and contents.get("kind") == _KIND


def checked_checkpoint(path: Path, contents: Any) -> dict[str, Any]:
    """Verify contents and convert them to the current format. Raises UserError for other contents, a later version,
    missing parts, a wrong digest, or entries that cannot be used."""
    if not is_checkpoint(contents):
        raise UserError(f"{path} is not a checkpoint of this software")
    version = contents.get("format_version")
    if not isinstance(version, int) or not 1 <= version <= FORMAT_VERSION:
        raise UserError(
            f"{path} has format version {version}; this software reads versions 1 to {FORMAT_VERSION}; update it"
        )
    missing = [name for name in _REQUIRED if name not in contents]
    if missing:
        raise UserError(f"{path} lacks {', '.join(missing)}")
    check_plain(contents, f"{path} is damaged", Tensor, float)
    if "digest" in contents and contents["digest"] != digest(contents):
        raise UserError(f"{path} is damaged: its contents do not match their digest")
    with corrupt_file_as_user_error(path):
        upgraded = upgrade(contents)
    validate(Contents, upgraded, f"{path} is damaged")
    check_plain(upgraded["settings"], f"{path} is damaged: settings")
    return upgraded


def find_checkpoint(pattern: str) -> Path:
    """The file with that name, or the newest file that matches the pattern. `weights/NAME` names the weights that come
    with this software. Raises UserError if there is none."""
    path = expand_path(pattern)
    shipped = _ROOT / f"{pattern}.pt"
    if not path.exists() and shipped.parent == SHIPPED_WEIGHTS and shipped.is_file():
        return shipped
    if path.exists() or not any(sign in pattern for sign in "*?["):
        return path
    anchor = Path(path.anchor)
    matches = list(anchor.glob(str(path.relative_to(anchor))) if path.is_absolute() else Path().glob(str(path)))
    if not matches:
        raise UserError(f"no checkpoint matches {pattern}; train one with ddpm_train.py, or name a file")
    return max(matches, key=lambda match: match.stat().st_mtime)


def _absorb(hasher: Any, part: Any) -> None:
    if isinstance(part, Tensor):
        hasher.update(f"{part.dtype}{tuple(part.shape)}".encode())
        hasher.update(part.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    elif isinstance(part, Mapping):
        hasher.update(f"mapping of {len(part)}".encode())
        for item in part.items():
            _absorb(hasher, item)
    elif isinstance(part, list | tuple):
        hasher.update(f"list of {len(part)}".encode())
        for item in part:
            _absorb(hasher, item)
    else:
        hasher.update(f"{type(part).__name__} {part!r}".encode())


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


_RENAMED_SETTINGS = {
    "samples": "num_samples",
    "sampling_batch": "max_batch_size",
    "max_bad_steps": "max_nonfinite_steps",
}


def upgrade(contents: Mapping[str, Any]) -> dict[str, Any]:
    """Convert format version 1, in which network and process had no module names, to version 2."""
    if contents["format_version"] != 1:
        return dict(contents)
    network, process = contents["network"], contents["process"]
    num_classes = network.get("num_classes")
    if process.get("beta_schedule") == "single_jump":
        process_part = {"module": "diffusion.classifier", "params": {"num_classes": num_classes}}
    else:
        process_part = {
            "module": "diffusion.uniform",
            "params": {"num_classes": num_classes, "evidence": False, **process},
        }
    upgraded = {
        **contents,
        "format_version": 2,
        "settings": {_RENAMED_SETTINGS.get(name, name): value for name, value in contents["settings"].items()},
        "network": {"module": "models.unet", "params": {"scale_shift_norm": False, **network}},
        "process": process_part,
        "model": _renamed(contents["model"]),
        "average": _renamed(contents["average"]),
    }
    if "bad_steps" in upgraded:
        upgraded["nonfinite_steps"] = upgraded.pop("bad_steps")
    if "preprocessing" not in upgraded:
        mean = std = [0.5] * network.get("image_channels", 1)
        if contents["settings"].get("dataset_file") == "datasets.cityscapes":
            mean, std = list(Cityscapes.image_mean), list(Cityscapes.image_std)
        upgraded["preprocessing"] = {"image_mean": mean, "image_std": std}
    return upgraded


def _renamed(weights: Mapping[str, Any]) -> dict[str, Any]:
    return {
        f"network.{name.removeprefix('unet.')}" if name.startswith("unet.") else name: tensor
        for name, tensor in weights.items()
    }
