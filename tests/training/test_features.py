"""Trainings whose network is conditioned on the features of an encoder, frozen or trained."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import ddpm_train
from checkpoints.files import load_checkpoint
from checkpoints.model import build_model
from tests import tiny
from tests.checkpoints.official_files import encoder_state
from tests.models import dinos
from tests.trainings import Train
from utils.errors import UserError

KEYS = "encoder.vit.blocks.11.attn.qkv.weight"
TRAINED = "feature_cond_encoder.train=yes"


@pytest.fixture
def train(tmp_path: Path, dino_file: Path) -> Train:
    """Run a training of 2 steps on RGB images of 16 x 24 pixels; returns its last checkpoint."""
    splits = {}
    for split in ("train", "val"):
        columns = tiny.lesion_columns(4, dinos.SIDES, num_classes=3)
        splits[split] = {**columns, "images": np.repeat(columns["images"][:, None], 3, axis=1)}
    data = tiny.write_hdf5(tmp_path / "data.hdf5", splits)

    def run(name: str, *changes: str) -> dict[str, Any]:
        argv = [
            "dataset_file=datasets.lidc", f"dataset_params={{path: '{data}'}}", "dataset_pipeline_train=[]",
            "train_for=2 epochs", "mp_loaders=0", "num_samples=2", "validation_freq=100",
            "network_params.channel_mult=[1, 1, 1, 1]",
            f"feature_cond_encoder={{target_layer: 7, weights: '{dino_file}'}}",
        ]  # fmt: skip
        ddpm_train.main(tiny.train_argv(None, tmp_path / name, *argv, *changes))
        return load_checkpoint(tmp_path / name / "last.pt")

    return run


def test_frozen_weights_are_not_saved_and_found_again_on_resuming(train: Train, tmp_path: Path) -> None:
    whole = train("whole")
    assert all(name.startswith("network.") for name in (*whole["model"], *whole["average"]))
    assert whole["encoder"]["digest"] == dinos.frozen().digest
    again = train("again", f"load_from={tmp_path}/whole/last.pt", "train_for=3 epochs")
    assert again["step"] == 3
    assert build_model(again).sample(dinos.images(1)).labels.any()


def test_frozen_encoder_of_an_official_file_is_found_again(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    torch.save({"model": dinos.model().network.state_dict(), "cond_encoder": encoder_state()}, tmp_path / "that.pt")
    changes = [f"init_from={tmp_path}/that.pt", "load_from=auto", "feature_cond_encoder.weights=null"]
    assert train("frozen", *changes)["step"] == 2
    again = train("frozen", *changes, "train_for=3 epochs")
    assert again["step"] == 3
    assert build_model(again).sample(dinos.images(1)).labels.shape == (1, 1, *dinos.SIDES)


@pytest.mark.slow
def test_frozen_encoder_of_an_official_file_is_trained_on_request(train: Train, tmp_path: Path) -> None:
    torch.save({"model": dinos.model().network.state_dict(), "cond_encoder": encoder_state()}, tmp_path / "that.pt")
    frozen = train("frozen", f"init_from={tmp_path}/that.pt")
    assert not any(name.startswith("encoder.") for name in frozen["model"])
    trained = train("trained", f"init_from={tmp_path}/that.pt", TRAINED)
    moved = trained["model"][KEYS] - dinos.weights()[KEYS.removeprefix("encoder.vit.")]
    assert 0 < moved.abs().max() < 0.01
    assert train("resumed", f"load_from={tmp_path}/trained/last.pt", TRAINED, "train_for=3 epochs")["step"] == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("feature_cond_encoder.model=dino_vitb16", "the weight file of dino_vitb16 belongs to another network"),
        ("feature_cond_encoder.target_layer=6", "target_layer 6.*choose 7"),
        ("feature_cond_encoder.output_stride=16", "must divide the patch size of dino_vits8, 8 pixels"),
        ("feature_cond_encoder.weights=nowhere.pth", "there is no file nowhere.pth"),
        ("network_params.channel_mult=[1, 1]", "the coarsest stride is 2"),
        ("feature_cond_encoder.type=clip", "unknown key `feature_cond_encoder.type`"),
    ],
)
def test_settings_that_do_not_fit_are_refused(train: Train, tmp_path: Path, change: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        train("refused", change)
    assert not (tmp_path / "refused").exists()
