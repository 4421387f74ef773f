"""Where a training starts: from random weights, from the state in a checkpoint, or only from its weights."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from checkpoints.files import LAST, PREVIOUS, find_checkpoint, newest_intact
from checkpoints.model import check_network
from checkpoints.model import model_config as config_from_checkpoint
from checkpoints.official import load_model_file
from datasets import AnnotatedDataset
from diffusion import SamplingConfig
from training.model import adopt_network
from training.settings import TrainSettings
from utils.distributed import broadcast_from_main
from utils.errors import UserError, corrupt_file_as_user_error

Contents = Mapping[str, Any]


class InitialState(NamedTuple):
    """Where a training starts.

    Attributes:
        settings: those of the training; with `init_from`, their network is the checkpoint's.
        path: the checkpoint, or None for random weights.
        resumed: contents of the checkpoint whose training continues.
        initialised: contents of the checkpoint of which only the weights are used.
    """

    settings: TrainSettings
    path: str | None = None
    resumed: Contents | None = None
    initialised: Contents | None = None


def resolve_checkpoint(settings: TrainSettings, folder: Path, data: AnnotatedDataset) -> InitialState:
    """Read the checkpoint that `load_from` or `init_from` names; `auto` is the newest intact one in `folder`.

    Raises:
        UserError: for a file that is missing, damaged or not a checkpoint, for one with other classes or channels, and
            if the training would replace the checkpoints of another one.
    """
    load_from = settings.load_from
    own = load_from == "auto" or (load_from and find_checkpoint(load_from).parent.resolve() == folder.resolve())
    if not own and any((folder / name).is_file() for name in (LAST, PREVIOUS)):
        raise UserError(
            f"{folder} has the checkpoints of a training, which this one would replace; load_from=auto resumes it, and "
            "another output_path starts a new one"
        )
    if load_from == "auto":
        newest = broadcast_from_main(lambda: newest_intact(folder))
        load_from = None if newest is None else str(newest)
    named = load_from or settings.init_from
    if named is None:
        return InitialState(settings)
    path = str(find_checkpoint(named))
    checkpoint = load_model_file(path)
    with corrupt_file_as_user_error(path):
        config = config_from_checkpoint(checkpoint)
        check_network(config, checkpoint["average"])
        there, here = (config.num_classes, config.image_channels), (data.num_classes, data.image_channels)
        if there != here:
            raise UserError(
                f"the network of {path} has {there[0]} classes and images of {there[1]} channels, but "
                f"{settings.dataset_file} has {here[0]} and {here[1]}"
            )
        if settings.init_from is not None:
            settings = adopt_network(settings, checkpoint, path)
    if load_from is not None:
        return InitialState(settings, path, resumed=checkpoint)
    return InitialState(settings, path, initialised=checkpoint)


def check_resumable(start: InitialState, description: Contents, total_steps: int) -> None:
    """Refuse to resume from a checkpoint from which this training cannot continue as if it had not been interrupted.

    Args:
        start: the checkpoint to resume.
        description: the entries of this training's checkpoints that do not change.
        total_steps: steps of the whole training.

    Raises:
        UserError: naming the reason, and `init_from`, which requires only the same classes and channels.
    """
    if start.resumed is None:
        return
    with corrupt_file_as_user_error(start.path):
        reason = _reason_not_to_resume(start.resumed, description)
        completed = min(start.resumed["step"], start.resumed.get("validated", total_steps)) >= total_steps
    if reason is None and completed and start.settings.load_from != "auto":
        reason = f"it has completed its training of {total_steps} steps; only a larger train_for would continue it"
    if reason is not None:
        raise UserError(
            f"load_from: {start.path} cannot be resumed: {reason}. To start a new training from its weights, use "
            f"init_from={start.path} instead"
        )


def _reason_not_to_resume(checkpoint: Contents, description: Contents) -> str | None:
    if "optimizer" not in checkpoint:
        return "it contains weights, but not the state of a training (`optimizer`)"
    there, here = checkpoint["settings"], description["settings"]
    for name in ("dataset_file", "dataset_params", "batch_size"):
        if _comparable(there[name]) != _comparable(here[name]):
            return f"its {name} is {there[name]}, but the settings say {here[name]}"
    if checkpoint.get("num_images", description["num_images"]) != description["num_images"]:
        return f"it was trained on {checkpoint['num_images']} images, but the dataset has {description['num_images']}"
    if checkpoint.get("data_digest", description["data_digest"]) != description["data_digest"]:
        return "the images or label maps of its dataset have changed since"
    if checkpoint["best"]:
        if there["num_samples"] != here["num_samples"]:
            return (
                f"its best scores are those of num_samples {there['num_samples']}, but the settings say "
                f"{here['num_samples']}"
            )
        before = SamplingConfig(**there.get("sampling", here["sampling"]))  # older files lack newer fields
        if before != SamplingConfig(**here["sampling"]):
            return f"its best scores are those of sampling {there['sampling']}, but the settings say {here['sampling']}"
    for part in ("network", "process", "encoder"):
        one, other = (_flat(contents.get(part) or {}) for contents in (checkpoint, description))
        for name in dict.fromkeys([*one, *other]):
            if _comparable(one.get(name)) != _comparable(other.get(name)):
                return f"its {part} has {name} {one.get(name)}, but the settings say {other.get(name)}"
    return None


def _flat(part: Contents) -> Contents:
    """The parameters of a network, process or encoder, without the digest of weights, which is checked elsewhere."""
    values = {**part, **part.get("params", {})}
    return {name: value for name, value in values.items() if name not in ("params", "digest")}


def _comparable(value: Any) -> Any:
    """A setting as plain data; the path of a dataset may change."""
    if isinstance(value, Mapping):
        return {name: _comparable(item) for name, item in value.items() if name != "path"}
    return json.loads(json.dumps(value, default=str))
