"""One thread for every test: small tensors gain nothing from more, and threads that wait slow a busy machine down.

The fixtures are data and a finished training, both tiny, that are made once and that no test changes.
"""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

import ddpm_train
from datasets import synthetic
from tests import tiny

torch.set_num_threads(1)

UserModule = Callable[[str, str], None]


@pytest.fixture(scope="session")
def data_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds a small version of the embedded data set."""
    folder = tmp_path_factory.mktemp("data")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(synthetic, "SPLIT_SIZES", tiny.SPLIT_SIZES)
        synthetic.get_dataset("train", str(folder), tiny.SIDE)
    return folder


@pytest.fixture(scope="session")
def finished_run(data_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a training that went to its end."""
    folder = tmp_path_factory.mktemp("runs") / "finished"
    ddpm_train.main(tiny.train_argv(data_folder, folder))
    return folder


@pytest.fixture
def user_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[UserModule]:
    """Write a module of a name into the working directory, which is a fresh folder."""
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
