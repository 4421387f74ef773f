"""What the fault tests share: the training that is disturbed, and the comparison with the undisturbed one.

`CCDM_FAULTS=long` in the environment selects the long form.
"""

import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import ddpm_eval
import ddpm_train
from checkpoints.files import load_checkpoint
from tests import tiny
from tests.tiny import same
from training.validation import Validation
from utils.errors import run_script

LONG = os.environ.get("CCDM_FAULTS") == "long"
STATE = ("model", "average", "num_averaged", "optimizer", "step", "best", "validated", "nonfinite_steps")
CHANGES = (
    "dataset_pipeline_train=[flip, flip_vertical, quarter_turn]", "network_params.dropout=0.1", "max_epochs=20",
    "mp_loaders=0", "validation_freq=17", "checkpoint_freq=2", "n_validation_images=0", "load_from=auto",
)  # fmt: skip
STEPS = 60

Run = Callable[[], None]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark everything in this folder as a fault test."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker("faults")


def training_in(data: Path | None, folder: Path, *changes: str) -> Run:
    """A run of the training script in that folder, which resumes what it finds there."""

    def run() -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", ["ddpm_train.py", *tiny.train_argv(data, folder, *CHANGES, *changes)])
            run_script(ddpm_train.main, None)

    return run


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The run folder."""
    return tmp_path / "run"


@pytest.fixture
def slowed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make steps slow enough for a signal to arrive during one."""
    train_step = ddpm_train.train_step

    def slow_step(*arguments: Any) -> Any:
        time.sleep(0.02)
        return train_step(*arguments)

    monkeypatch.setattr(ddpm_train, "train_step", slow_step)


@pytest.fixture(scope="session")
def uninterrupted(data_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The last checkpoint of an undisturbed training."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    training_in(data_folder, folder)()
    return load_checkpoint(folder / "last.pt")


def check_same_end(folder: Path, uninterrupted: dict[str, Any]) -> None:
    """Check that the training in that folder ended in the same state, bit by bit, and left no temporary files."""
    ended = load_checkpoint(folder / "last.pt")
    assert ended["step"] == STEPS
    assert [name for name in STATE if not same(ended[name], uninterrupted[name])] == []
    assert list(folder.glob(".*.tmp")) == []


def wait_for(path: Path) -> None:
    """Wait until the file exists."""
    limit = time.monotonic() + 180
    while not path.exists():
        assert time.monotonic() < limit, f"no {path.name}"
        time.sleep(0.01)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The working folder of the fuzz tests; the steps of a training and the scoring of images are cut short."""
    folder = tmp_path_factory.mktemp("fuzz")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ddpm_train, "training_batches", lambda *_: [])
        patch.setattr(Validation, "is_due", lambda *_: False)
        patch.setattr(Validation, "table", lambda *_: "")
        patch.setattr(ddpm_eval, "score_distribution", lambda *_: None)
        patch.chdir(folder)
        yield folder


def trap(folder: Path) -> Path:
    """What would exist if code in a file had been executed."""
    return folder / "trap"
