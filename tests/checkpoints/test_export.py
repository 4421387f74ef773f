"""Exported weights predict, evaluate and initialise, are small, and say nothing about the machine of the training."""

from pathlib import Path
from typing import Any

import pytest
import torch

import ddpm_train
from checkpoints import export, files
from checkpoints.files import load_checkpoint
from checkpoints.model import build_model
from diffusion import SamplingConfig
from tests import tiny
from utils.errors import UserError


@pytest.fixture
def exported(finished_run: Path, tmp_path: Path) -> Path:
    path = tmp_path / "exported.pt"
    export.main([str(finished_run / "best_ged.pt"), str(path)])
    return path


def logits(contents: dict[str, Any]) -> torch.Tensor:
    model, x_t, t = (
        build_model(contents),
        torch.zeros(2, tiny.SIDE, tiny.SIDE, dtype=torch.uint8),
        torch.tensor([3, 40]),
    )
    return model(x_t, t, tiny.images(2))


def test_exported_weights_are_those_of_the_average_in_float16(finished_run: Path, exported: Path) -> None:
    original = load_checkpoint(finished_run / "best_ged.pt")
    torch.testing.assert_close(logits(load_checkpoint(exported)), logits(original), rtol=0, atol=5e-3)
    assert exported.stat().st_size < (finished_run / "best_ged.pt").stat().st_size / 6
    samples = build_model(load_checkpoint(exported)).sample(tiny.images(1), 2, SamplingConfig(steps=3))
    assert samples.labels.shape == (1, 2, tiny.SIDE, tiny.SIDE)


def test_exported_weights_do_not_name_places(finished_run: Path, exported: Path) -> None:
    contents = load_checkpoint(exported)
    assert str(finished_run) not in str({name: value for name, value in contents.items() if name != "average"})
    assert contents["settings"]["dataset_params"] == {}
    assert contents["settings"]["batch_size"] == 4


def test_exported_weights_do_not_name_the_file_of_a_frozen_encoder(finished_run: Path) -> None:
    checkpoint = load_checkpoint(finished_run / "best_ged.pt")
    encoder = {"model": "dino_vits8", "weights": "/home/somebody/dino.pth"}
    settings = {**checkpoint["settings"], "feature_cond_encoder": encoder}
    exported = export.export({**checkpoint, "settings": settings, "encoder": {"model": "dino_vits8", "digest": "1f"}})
    assert exported["settings"]["feature_cond_encoder"] == {"model": "dino_vits8", "weights": None}
    assert exported["encoder"]["digest"] == "1f"


def test_a_training_starts_from_exported_weights_but_does_not_resume(
    exported: Path, data_folder: Path, tmp_path: Path
) -> None:
    ddpm_train.main(tiny.train_argv(data_folder, tmp_path / "new", f"init_from={exported}", "train_for=1 steps"))
    assert load_checkpoint(tmp_path / "new" / "last.pt")["step"] == 1
    with pytest.raises(UserError, match=r"not the state of a training.*init_from"):
        ddpm_train.main(tiny.train_argv(data_folder, tmp_path / "other", f"load_from={exported}"))


def test_shipped_weights_have_a_short_name(exported: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "weights").mkdir()
    shipped = exported.rename(tmp_path / "weights" / "mine.pt")
    monkeypatch.setattr(files, "_ROOT", tmp_path)
    monkeypatch.setattr(files, "SHIPPED_WEIGHTS", tmp_path / "weights")
    assert files.find_checkpoint("weights/mine") == shipped
    assert files.find_checkpoint("weights/other") == Path("weights/other")


def test_other_arguments_are_refused() -> None:
    with pytest.raises(UserError, match="two arguments"):
        export.main(["one.pt"])


@pytest.mark.parametrize("name", ["best_ged.pt", "last.pt", "previous.pt"])
def test_state_of_a_training_is_not_replaced(finished_run: Path, name: str) -> None:
    before = (finished_run / name).read_bytes()
    said = tiny.refusal(export.main, [str(finished_run / "best_ged.pt"), str(finished_run / name)])
    assert "this name is that of a training's state" in said
    assert (finished_run / name).read_bytes() == before
