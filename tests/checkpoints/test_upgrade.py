"""Checkpoints of format version 1, in which network and process had no module names, are converted on reading."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from checkpoints.files import digest, load_checkpoint
from checkpoints.model import build_model, model_config
from checkpoints.preprocessing import Preprocessing
from datasets.cityscapes import Cityscapes
from diffusion import PixelwiseClassifier, UniformConfig
from models import CCDM, EncoderConfig
from tests import tiny
from tests.models import dinos
from utils.errors import UserError

PREPROCESSING = {
    "image_mean": [0.5], "image_std": [0.5], "size": (32, 32), "class_names": ["background", "lesion"],
    "class_colours": None, "void_class": None,
}  # fmt: skip


def version_1(model: CCDM, schedule: str = "cosine", **settings: Any) -> dict[str, Any]:
    """What ddpm_train.py saved in format version 1."""

    def old(part: nn.Module) -> dict[str, Any]:
        return {f"unet.{name.removeprefix('network.')}" if name.startswith("network.") else name: tensor
                for name, tensor in part.state_dict().items()}  # fmt: skip

    network = model.network.config.model_dump(exclude={"num_states", "scale_shift_norm"})
    contents = {
        "settings": {
            "precision": "float32", "load_from": None, "seed": 0, "dataset_file": "datasets.synthetic",
            "max_bad_steps": 2, "objective": "diffusion", "time_steps": tiny.TIME_STEPS, "samples": 8,
            "sampling_batch": None, "feature_cond_encoder": {"weights": None, "type": "none"}, **settings,
        },
        "network": network,
        "process": {"time_steps": model.process.time_steps, "beta_schedule": schedule, "beta_schedule_params": {}},
        "preprocessing": PREPROCESSING | {
            **dict.fromkeys(("image_mean", "image_std"), [0.5] * network["image_channels"]),
            "class_names": ["background", "lesion", "vessel"][: network["num_classes"]],
        },
        "model": {name: torch.zeros_like(tensor) for name, tensor in old(model).items()},
        "average": old(model),
        "num_averaged": 64,
        "optimizer": torch.optim.Adam(model.parameters()).state_dict(),
        "step": 64,
        "validated": 64,
        "best": {"ged": 0.36},
        "bad_steps": [1, 7, "loss"],
        "kind": "ccdm",
        "format_version": 1,
    }  # fmt: skip
    if model.encoder is not None:
        found = getattr(model.encoder, "digest", None)
        contents["encoder"] = {**model.encoder.config.model_dump(), "digest": found}
    return contents


def write(path: Path, contents: dict[str, Any]) -> Path:
    torch.save({**contents, "digest": digest(contents)}, path)
    return path


@torch.no_grad()
def test_model_predicts_the_same(tmp_path: Path) -> None:
    model = tiny.model()
    contents = load_checkpoint(write(tmp_path / "last.pt", version_1(model)))
    again, images, t = build_model(contents), tiny.images(2), torch.tensor([3, 40])
    x_t = torch.zeros(2, tiny.SIDE, tiny.SIDE, dtype=torch.uint8)
    assert torch.equal(again(x_t, t, images), model(x_t, t, images))
    assert again.process.config == UniformConfig(time_steps=tiny.TIME_STEPS)
    assert again.network.config == model.network.config
    assert Preprocessing.from_checkpoint(contents).class_names == ["background", "lesion"]
    assert contents["model"].keys() == contents["average"].keys() == model.state_dict().keys()


def test_settings_and_state_get_their_new_names(tmp_path: Path) -> None:
    old = version_1(tiny.model())
    contents = load_checkpoint(write(tmp_path / "last.pt", old))
    settings = contents["settings"]
    assert contents["format_version"] == 2
    assert (settings["num_samples"], settings["max_batch_size"], settings["max_nonfinite_steps"]) == (8, None, 2)
    assert contents["nonfinite_steps"] == [1, 7, "loss"]
    assert not {"samples", "sampling_batch", "max_bad_steps"} & settings.keys()
    for name in ("optimizer", "step", "validated", "best", "num_averaged"):
        assert tiny.same(contents[name], old[name])


def test_classifier_is_a_process_of_its_own(tmp_path: Path) -> None:
    model = CCDM(tiny.model().network, PixelwiseClassifier(2))
    contents = load_checkpoint(write(tmp_path / "last.pt", version_1(model, "single_jump")))
    again = build_model(contents)
    assert isinstance(again.process, PixelwiseClassifier)
    assert torch.equal(again.sample(tiny.images(1), 3).labels, model.sample(tiny.images(1), 3).labels)


def test_encoder_is_restored_from_the_file_of_the_training(tmp_path: Path, dino_file: Path) -> None:
    model, settings = dinos.model(), {"feature_cond_encoder": {"weights": str(dino_file), "type": "dino"}}
    contents = load_checkpoint(write(tmp_path / "last.pt", version_1(model, **settings)))
    assert model_config(contents).encoder == EncoderConfig()
    assert torch.equal(build_model(contents).sample(dinos.images(1)).labels, model.sample(dinos.images(1)).labels)


@pytest.mark.parametrize(
    ("dataset_file", "mean"), [("my.data", [0.5, 0.5, 0.5]), ("datasets.cityscapes", list(Cityscapes.image_mean))]
)
def test_missing_preprocessing_is_that_of_the_dataset(tmp_path: Path, dataset_file: str, mean: list[float]) -> None:
    old = version_1(tiny.model(20, 3), dataset_file=dataset_file)
    del old["preprocessing"]
    assert Preprocessing.from_checkpoint(load_checkpoint(write(tmp_path / "last.pt", old))).image_mean == mean


def test_damage_is_found_in_old_files_too(tmp_path: Path) -> None:
    contents = version_1(tiny.model())
    torch.save({**contents, "digest": digest(contents), "step": 65}, tmp_path / "last.pt")
    with pytest.raises(UserError, match="do not match their digest"):
        load_checkpoint(tmp_path / "last.pt")
