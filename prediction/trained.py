"""Loading a trained model from its checkpoint."""

from pathlib import Path
from typing import NamedTuple

from checkpoints.files import find_checkpoint
from checkpoints.model import build_model
from checkpoints.official import load_model_file
from checkpoints.preprocessing import Preprocessing
from evaluation.classes import ClassTable
from models import CCDM
from models.runtime import RuntimeOptions, apply_runtime_options, resolve_auto
from utils.device import choose_device


class Trained(NamedTuple):
    """A model with its averaged weights, and how images are prepared for it."""

    model: CCDM
    preprocessing: Preprocessing

    @property
    def classes(self) -> ClassTable:
        """Names and colours of the classes."""
        return ClassTable.from_preprocessing(self.model.process.num_classes, self.preprocessing)


def load_model(
    path: str | Path,
    device: str = "auto",
    weights: str | None = None,
    network: str | None = None,
    process: str | None = None,
) -> Trained:
    """Load a checkpoint of this software or an official one, ready to sample.

    Args:
        path: the file, or a glob pattern, of whose matches the newest is used.
        device: auto, cpu, cuda, cuda:N or mps.
        weights: file with the weights of a frozen encoder; by default the one used in training.
        network: dotted name of the network's module, required if it is not part of this software: only modules that
            are named by the caller are imported.
        process: likewise for the process.

    Raises:
        UserError: if there is no such file or device, or the file cannot be read; for a checkpoint whose network or
            process is a module of yours that is not named here.
    """
    contents, place = load_model_file(find_checkpoint(str(path))), choose_device(device)
    trusted = [name for name in (network, process) if name is not None]
    model = build_model(contents, weights, trusted).to(place)
    # images come in many sizes, and the compiler would run for each of them
    apply_runtime_options(model, resolve_auto(RuntimeOptions(compile=False), place))
    return Trained(model, Preprocessing.from_checkpoint(contents))
