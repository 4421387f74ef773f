"""Where a training starts: anew, from a checkpoint, or from the newest one of its own run folder."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from checkpoints.files import is_checkpoint, newest_intact
from checkpoints.model import ModelConfig, config_from_checkpoint
from checkpoints.official import load_model_file
from datasets import AnnotatedDataset
from training.from_settings import adopt_shapes, check_same, shapes_from, unfrozen
from training.run_dir import folder_name
from utils.distributed import broadcast_from_main
from utils.errors import UserError, corrupt_file_as_user_error
from utils.schema import TrainSettings


class Start(NamedTuple):
    """The settings and shapes of a training, and the contents of the checkpoint that it goes on from, if any."""

    settings: TrainSettings
    shapes: ModelConfig
    checkpoint: Mapping[str, Any] | None


def resolve_checkpoint(settings: TrainSettings, data: AnnotatedDataset) -> Start:
    """What `load_from` says; weights that come without a training's state bring their own network.

    Raises:
        UserError: for a checkpoint that is not there, is damaged, or does not fit the settings.
    """
    sizes = data.num_classes, data.image_channels
    path = newest_of_run(settings) if settings.load_from == "auto" else settings.load_from
    if path is None:
        return Start(settings, shapes_from(settings, *sizes), None)
    checkpoint: Mapping[str, Any] = load_model_file(path)
    if not is_checkpoint(checkpoint):
        if settings.feature_cond_encoder.train:
            checkpoint = unfrozen(checkpoint, settings.feature_cond_encoder.weights)
        settings = adopt_shapes(settings, checkpoint, *sizes)
        return Start(settings, shapes_from(settings, *sizes), checkpoint)
    shapes = shapes_from(settings, *sizes)
    with corrupt_file_as_user_error(path):
        check_same(config_from_checkpoint(checkpoint), shapes, path)
        check_state(checkpoint, settings, path)
    return Start(settings, shapes, checkpoint)


def check_state(checkpoint: Mapping[str, Any], settings: TrainSettings, path: str) -> None:
    """Refuse a checkpoint from which this training cannot go on where it stopped."""
    if "optimizer" not in checkpoint:
        raise UserError(f"{path} lacks `optimizer`, without which no training can be continued")
    trained_with = checkpoint["settings"]["batch_size"]
    if trained_with != settings.batch_size:
        raise UserError(
            f"{path} was trained with batch_size {trained_with}, the settings say {settings.batch_size}: the position "
            f"in the data would not be the same"
        )


def newest_of_run(settings: TrainSettings) -> str | None:
    """The newest intact checkpoint of the run folder, or None where the run has not saved any yet.

    Raises:
        UserError: for a folder that would be another one every time.
    """
    if "${NOW}" in settings.output_path:
        raise UserError("load_from: auto needs an output_path that stays the same: one without ${NOW}")
    path = broadcast_from_main(lambda: newest_intact(folder_name(settings.output_path, settings.dataset_file)))
    return None if path is None else str(path)
