"""Weights to publish, without the state of the training: python -m checkpoints.export CHECKPOINT weights/NAME.pt"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from checkpoints.files import LAST, PREVIOUS, find_checkpoint, load_checkpoint, save_checkpoint
from utils.errors import UserError, run_script
from utils.paths import expand_path

PLACES = ("output_path", "load_from", "init_from", "dataset_params")
"""Settings that describe the machine of the training."""


def main(argv: Sequence[str]) -> None:
    """Export the checkpoint that the first argument names to the file that the second one names.

    Raises:
        UserError: for other arguments, a checkpoint that cannot be read, and a file that cannot be written.
    """
    if len(argv) != 2:
        raise UserError("expected two arguments: CHECKPOINT FILE")
    source, target = find_checkpoint(argv[0]), expand_path(argv[1])
    if target.resolve() == source.resolve() or target.name in (LAST, PREVIOUS):
        raise UserError(f"{target}: this name is that of a training's state; choose another one")
    save_checkpoint(target, export(load_checkpoint(source)))


def export(checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """What predicting and evaluating need, and `init_from`: the averaged weights, in float16, and their description.

    The weights of a frozen encoder stay where they are published, or with the user; their digest is kept.
    """
    names = ("network", "process", "encoder", "preprocessing", "num_images", "step", "best")
    kept = {name: checkpoint[name] for name in names if name in checkpoint}
    settings = {name: value for name, value in checkpoint["settings"].items() if name not in PLACES}
    if settings.get("feature_cond_encoder"):
        settings["feature_cond_encoder"] = {**settings["feature_cond_encoder"], "weights": None}
    average = {
        # the tables of the process need their precision
        name: tensor.half() if tensor.dtype == torch.float32 and not name.startswith("process.") else tensor
        for name, tensor in checkpoint["average"].items()
    }
    return {**kept, "settings": {**settings, "dataset_params": {}}, "average": average, "model": {}}


if __name__ == "__main__":
    run_script(main, __doc__)
