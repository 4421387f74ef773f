"""A trained model from its file, ready to draw."""

from pathlib import Path
from typing import NamedTuple

from checkpoints.files import find_checkpoint
from checkpoints.model import restore
from checkpoints.official import load_model_file
from checkpoints.preprocessing import Preprocessing
from models import CCDM
from models.runtime import apply_runtime_options, resolve_auto
from utils.device import choose_device
from utils.errors import corrupt_file_as_user_error
from utils.schema import RuntimeOptions


class Trained(NamedTuple):
    """A model with its averaged weights, and how its images have to be prepared."""

    model: CCDM
    preprocessing: Preprocessing


def load_model(path: str | Path, device: str = "auto", weights: str | None = None) -> Trained:
    """The model of a checkpoint, of this software or an official one.

    Args:
        path: the file; of a pattern's matches, the newest.
        device: auto, cpu, cuda or cuda:N.
        weights: file of a frozen encoder's weights; None takes the one that training took.

    Raises:
        UserError: where there is no such file or device, or it cannot be read.
    """
    file = find_checkpoint(str(path))
    contents, place = load_model_file(file), choose_device(device)
    with corrupt_file_as_user_error(file):
        trained = Trained(restore(contents, weights), Preprocessing.of_checkpoint(contents))
    # images come in many sizes, and a compiler would be at work for each of them
    apply_runtime_options(trained.model.to(place), resolve_auto(RuntimeOptions(compile=False), place))
    return trained
