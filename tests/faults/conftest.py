"""What the tests of this folder share: the size of the training that meets the faults, and how it ends undisturbed.

`CCDM_FAULTS=long` in the environment runs the long form.
"""

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import ddpm_eval
import ddpm_train
from checkpoints.files import load_checkpoint
from tests import tiny
from tests.tiny import same
from utils.errors import run_script

LONG = os.environ.get("CCDM_FAULTS") == "long"
STATE = ("model", "average", "num_averaged", "optimizer", "step", "best", "bad_steps")
CHANGES = (
    "dataset_pipeline_train=[flip, flip_vertical, quarter_turn]", "unet_openai.dropout=0.1", "max_epochs=20",
    "mp_loaders=0", "validation_freq=17", "checkpoint_freq=2", "n_validation_images=0", "load_from=auto",
)  # fmt: skip
STEPS = 60

Run = Callable[[], None]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything in this folder is a fault test."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker("faults")


def training_in(data: Path | None, folder: Path, *changes: str) -> Run:
    """A run of the training script in that folder, going on from what it finds there."""

    def run() -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", ["ddpm_train.py", *tiny.train_argv(data, folder, *CHANGES, *changes)])
            run_script(ddpm_train.main, None)

    return run


@pytest.fixture(scope="session")
def uninterrupted(data_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The last checkpoint of a training that nothing happened to."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    training_in(data_folder, folder)()
    return load_checkpoint(folder / "last.pt")


def check_same_end(folder: Path, uninterrupted: dict[str, Any]) -> None:
    """The training in that folder has ended as the undisturbed one has, to the bit, and has left no rubbish."""
    ended = load_checkpoint(folder / "last.pt")
    assert ended["step"] == STEPS
    different = [name for name in STATE if not same(ended[name], uninterrupted[name])]
    assert different == []
    assert list(folder.glob(".*.tmp")) == []


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory, finished_run: Path) -> Iterator[Path]:
    """A folder to work in, with the long parts of the scripts cut short and a trap that no input may touch."""
    folder = tmp_path_factory.mktemp("fuzz")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ddpm_train.Training, "run", lambda self: True)
        patch.setattr(ddpm_eval, "score_distribution", lambda *_: None)
        patch.chdir(folder)
        yield folder
    assert not trap(folder).exists()


def trap(folder: Path) -> Path:
    """What comes into being where code in a file is run."""
    return folder / "trap"
