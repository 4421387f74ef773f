"""Fixtures: tiny data and a finished training, which are made once and which no test changes.

All tests use one thread: small tensors gain nothing from more, and waiting threads slow down a busy machine.
"""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import ddpm_train
from checkpoints.files import load_checkpoint
from datasets import synthetic
from tests import tiny
from tests.models import dinos
from tests.trainings import StartedTraining, Train, start_training

torch.set_num_threads(1)

UserModule = Callable[[str, str], None]


@pytest.fixture(scope="session")
def data_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small version of the synthetic dataset."""
    folder = tmp_path_factory.mktemp("data")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(synthetic, "SPLIT_SIZES", tiny.SPLIT_SIZES)
        synthetic.get_dataset("train", str(folder), tiny.SIDE)
    return folder


@pytest.fixture(scope="session")
def finished_run(data_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a completed training."""
    folder = tmp_path_factory.mktemp("runs") / "finished"
    ddpm_train.main(tiny.train_argv(data_folder, folder))
    return folder


@pytest.fixture(scope="session")
def dino_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The weights of DINO in a file."""
    path = tmp_path_factory.mktemp("dino") / "dino_deitsmall8_pretrain.pth"
    torch.save(dinos.weights(), path)
    return path


@pytest.fixture
def user_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[UserModule]:
    """Write a module with a name and a source into the working directory, which is a new folder."""
    folder = tmp_path / "workplace"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", list(sys.path))
    written: list[str] = []

    def write(name: str, source: str) -> None:
        (folder / f"{name}.py").write_text(source, encoding="utf-8")
        written.append(name)

    yield write
    for name in written:
        sys.modules.pop(name, None)


@pytest.fixture
def train(data_folder: Path, tmp_path: Path) -> Train:
    """Train in a folder with that name; returns the last checkpoint."""

    def run(name: str, *changes: str) -> dict[str, Any]:
        ddpm_train.main(tiny.train_argv(data_folder, tmp_path / name, *changes))
        return load_checkpoint(tmp_path / name / "last.pt")

    return run


@pytest.fixture
def training(data_folder: Path, tmp_path: Path) -> StartedTraining:
    """A training that has not done its first step."""
    return start_training(tiny.train_argv(data_folder, tmp_path / "run"))
