"""What the fault tests share: the training that is disturbed, and the comparison with the undisturbed one.

`CCDM_FAULTS=long` in the environment selects the long form.
"""

import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest

import ddpm_eval
import ddpm_train
from checkpoints.files import load_checkpoint, newest_intact
from evaluation import Evaluation
from tests import tiny
from tests.processes import start_forked
from training.validation import Validation
from utils.errors import EXIT_USER_ERROR, run_script

LONG = os.environ.get("CCDM_FAULTS") == "long"
STATE = ("model", "average", "num_averaged", "optimizer", "step", "best", "validated", "nonfinite_steps")
CHANGES = (
    "dataset_pipeline_train=[flip, flip_vertical, quarter_turn]", "network_params.dropout=0.1", "train_for=20 epochs",
    "mp_loaders=0", "validation_freq=17", "checkpoint_freq=2", "n_validation_images=0", "load_from=auto",
)  # fmt: skip
STEPS = 60


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark everything in this folder as a fault test."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker("faults")


@dataclass(frozen=True)
class Trial:
    """A training in a folder, which resumes what it finds there."""

    data: Path | None
    folder: Path
    expected: dict[str, Any]
    capsys: pytest.CaptureFixture[str]

    def run(self, *changes: str) -> None:
        """Run the training script to its end."""
        with pytest.MonkeyPatch.context() as patch:
            argv = tiny.train_argv(self.data, self.folder, *CHANGES, *changes)
            patch.setattr(sys, "argv", ["ddpm_train.py", *argv])
            run_script(ddpm_train.main, None)

    def start(self, *changes: str) -> BaseProcess:
        """Run the training script in a process of its own."""
        return start_forked(lambda: self.run(*changes))

    def refusal(self, *changes: str) -> str:
        """The message with which the training ends."""
        with pytest.raises(SystemExit) as ended:
            self.run(*changes)
        assert ended.value.code == EXIT_USER_ERROR
        error = self.capsys.readouterr().err
        assert "Traceback" not in error
        return error.rpartition("error: ")[2]

    def finish(self) -> None:
        """Resume, and check that the training ends as it should."""
        self.run()
        self.check_end()

    def check_end(self) -> None:
        """Check that the training ended in the expected state, bit by bit, and left no temporary files."""
        ended = load_checkpoint(self.folder / "last.pt")
        assert ended["step"] == STEPS
        assert [name for name in STATE if not tiny.same(ended[name], self.expected[name])] == []
        assert list(self.folder.glob(".*.tmp")) == []

    def saved_step(self) -> int:
        """The step of the newest checkpoint."""
        path = newest_intact(self.folder) if self.folder.exists() else None
        return 0 if path is None else int(load_checkpoint(path)["step"])


@pytest.fixture(scope="session")
def undisturbed(data_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The last checkpoint of an undisturbed training."""
    folder = tmp_path_factory.mktemp("undisturbed")
    ddpm_train.main(tiny.train_argv(data_folder, folder, *CHANGES))
    return load_checkpoint(folder / "last.pt")


@pytest.fixture
def trial(data_folder: Path, tmp_path: Path, undisturbed: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> Trial:
    """A training that has not started."""
    return Trial(data_folder, tmp_path / "run", undisturbed, capsys)


@pytest.fixture
def slowed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make steps slow enough for a signal to arrive during one."""
    train_step = ddpm_train.train_step

    def slow_step(*arguments: Any) -> Any:
        time.sleep(0.02)
        return train_step(*arguments)

    monkeypatch.setattr(ddpm_train, "train_step", slow_step)


def wait_for(path: Path) -> None:
    """Wait until the file exists."""
    limit = time.monotonic() + 180
    while not path.exists():
        assert time.monotonic() < limit, f"no {path.name}"
        time.sleep(0.01)


@pytest.fixture(scope="module")
def bench(finished_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The working folder of the fuzz tests; the steps of a training and the scoring of images are cut short.

    The finished run has to exist before.
    """
    folder = tmp_path_factory.mktemp("fuzz")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ddpm_train, "training_batches", lambda *_: [])
        patch.setattr(Validation, "is_due", lambda *_: False)
        patch.setattr(Evaluation, "run", lambda *_: [])
        patch.setattr(ddpm_eval, "write_results", lambda *_: None)
        patch.setenv("HF_HUB_OFFLINE", "1")
        patch.chdir(folder)
        yield folder


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder of hostile inputs, of which only the folder `inside` may change."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return tmp_path


def trap(folder: Path) -> Path:
    """What would exist if code in a file had been executed."""
    return folder / "trap"
