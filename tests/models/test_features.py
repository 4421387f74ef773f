"""Features as the model's second condition: computed once, shared by samples and steps, frozen or trained."""

import copy
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import ddpm_train
from checkpoints.files import load_checkpoint
from checkpoints.model import restore, to_config_dict
from models import CCDM, DinoEncoder, FrozenEncoder
from models.dino import EncoderConfig
from tests import tiny
from tests.models import dinos
from training.optimisation import NonFiniteGuard, moving_average
from utils.errors import UserError
from utils.noise import derive_key

Train = Callable[..., dict[str, Any]]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many images went through the transformer, call by call."""
    counted: list[int] = []
    forward = DinoEncoder.forward

    def count(self: DinoEncoder, images: Tensor) -> Tensor:
        counted.append(len(images))
        return forward(self, images)

    monkeypatch.setattr(DinoEncoder, "forward", count)
    return counted


def labels(number: int) -> Tensor:
    return torch.randint(3, (number, *dinos.SIDES), generator=torch.Generator().manual_seed(0))


def loss(model: CCDM, number: int) -> Tensor:
    return model.loss(dinos.images(number), labels(number), derive_key("test", torch.arange(number)))


def test_features_are_computed_once_an_image(calls: list[int]) -> None:
    model, images = dinos.model(), dinos.images(2)
    model.sample(images, num_samples=3, steps=2, max_batch_size=4)
    assert calls == [2]
    list(model.trajectory(images, steps=3))
    model.bits_per_pixel(images, labels(2))
    loss(model, 2)
    assert calls == [2, 2, 2, 2]


def test_every_sample_gets_the_features_of_its_own_image() -> None:
    model, images = dinos.model().double(), dinos.images(3).double()
    whole = model.sample(images, 2, steps=3).labels
    alone = torch.cat([model.sample(image[None], 2, steps=3, max_batch_size=1).labels for image in images])
    assert torch.equal(whole, alone)
    assert len(whole.flatten(0, 1).flatten(1).unique(dim=0)) == 6


@torch.no_grad()
def test_predictions_depend_on_the_features() -> None:
    model, images, t = dinos.model(), dinos.images(2), torch.tensor([5, 30])
    features = model.features(images)
    assert features is not None
    assert features.shape == (2, 384, 2, 3)
    here = model(labels(2), t, images)
    assert torch.equal(model(labels(2), t, images, features), here)
    assert float((model(labels(2), t, images, -features) - here).abs().max()) > 1e-3


def step(model: CCDM) -> None:
    """One step of the optimiser and of the average, as in training."""
    guard = NonFiniteGuard(torch.device("cpu"))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    average = moving_average(model, 0.5, guard)
    loss(model, 2).sum().backward()
    optimizer.step()
    average.update_parameters(model)


def test_frozen_weights_are_bit_identical_after_training_and_in_no_state() -> None:
    encoder = dinos.encoder()
    before = copy.deepcopy(encoder.state_dict())
    model = dinos.model(FrozenEncoder(encoder))
    weights = copy.deepcopy(model.state_dict())
    step(model.train())
    assert tiny.same(dict(encoder.state_dict()), dict(before))
    assert not tiny.same(dict(model.state_dict()), dict(weights))
    assert all(name.startswith("unet.") for name, _ in model.named_parameters())
    assert all(name.startswith("unet.") for name in model.state_dict())


def test_frozen_weights_are_not_averaged() -> None:
    model = dinos.model()
    average = moving_average(model, 0.5, NonFiniteGuard(torch.device("cpu"))).module
    assert isinstance(average, CCDM)
    assert average.encoder is model.encoder
    assert average.state_dict().keys() == model.state_dict().keys()


def test_trained_weights_move_and_are_saved() -> None:
    model = dinos.model(dinos.encoder(dinos.TRAINED))
    before = copy.deepcopy(model.state_dict())
    step(model.train())
    moved = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert {"encoder.vit.patch_embed.proj.weight", "encoder.vit.blocks.11.attn.qkv.weight"} <= moved
    assert "encoder.vit.norm.weight" in before
    assert "encoder.vit.norm.weight" not in moved


@pytest.mark.parametrize(
    ("network", "shape", "message"),
    [
        (tiny.network_shape(3, 3), dinos.SHAPE, "one is missing"),
        (dinos.NETWORK, None, "one is missing"),
        (dinos.NETWORK, EncoderConfig("dino_vitb8"), "takes 384 channels .* dino_vitb8 makes 768 at stride 8"),
        (
            dinos.NETWORK,
            EncoderConfig("dino_vits16", output_stride=16),
            "at stride 8; dino_vits16 makes 384 at stride 16",
        ),
    ],
)
def test_encoder_that_does_not_fit_is_refused(network: Any, shape: EncoderConfig | None, message: str) -> None:
    with torch.device("meta"):
        encoder = None if shape is None else DinoEncoder(shape)
    with pytest.raises(UserError, match=message):
        CCDM(network, dinos.PROCESS, encoder)


def test_grey_images_are_refused() -> None:
    grey = dataclasses.replace(dinos.NETWORK, image_channels=1)
    with pytest.raises(UserError, match="images of 3 channels; these have 1"):
        CCDM(grey, dinos.PROCESS, dinos.frozen())


# ---------------------------------------------------------------- checkpoints


@pytest.fixture(scope="module")
def dino_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("dino") / "dino_deitsmall8_pretrain.pth"
    torch.save(dinos.weights(), path)
    return path


def contents_of(model: CCDM, weights: Path | None) -> dict[str, Any]:
    return {
        "settings": {"feature_cond_encoder": {"weights": None if weights is None else str(weights)}},
        **to_config_dict(dinos.NETWORK, dinos.PROCESS, model.encoder),
        "average": model.state_dict(),
    }


@torch.no_grad()
def test_restored_model_predicts_the_same(dino_file: Path) -> None:
    images, t = dinos.images(2), torch.tensor([5, 30])
    for encoder, file in ((dinos.frozen(), dino_file), (dinos.encoder(dinos.TRAINED), None)):
        model = dinos.model(encoder)
        again = restore(contents_of(model, file))
        assert torch.equal(again(labels(2), t, images), model(labels(2), t, images))


def test_file_that_is_named_takes_the_place_of_the_one_of_training(dino_file: Path) -> None:
    contents = contents_of(dinos.model(), Path("/nowhere/dino.pth"))
    with pytest.raises(UserError, match=r"there is no file /nowhere/dino\.pth"):
        restore(contents)
    assert restore(contents, str(dino_file)).encoder is not None


def test_other_weights_than_in_training_are_refused(tmp_path: Path) -> None:
    torch.save({**dinos.weights(), "norm.bias": torch.ones(384)}, tmp_path / "other.pth")
    with pytest.raises(UserError, match="not those that the checkpoint was trained with"):
        restore(contents_of(dinos.model(), tmp_path / "other.pth"))


# ---------------------------------------------------------------- a whole training


@pytest.fixture
def train(tmp_path: Path, dino_file: Path) -> Train:
    """Run a training of 2 steps on coloured images of 16 x 24 pixels; returns its last checkpoint."""
    splits = {}
    for split in ("train", "val"):
        columns = tiny.lesion_columns(4, dinos.SIDES, num_classes=3)
        splits[split] = {**columns, "images": np.repeat(columns["images"][:, None], 3, axis=1)}
    data = tiny.write_hdf5(tmp_path / "data.hdf5", splits)

    def run(name: str, *changes: str) -> dict[str, Any]:
        argv = [
            "dataset_file=datasets.lidc", f"dataset_params={{path: '{data}'}}", "dataset_pipeline_train=[]",
            "max_epochs=2", "mp_loaders=0", "time_steps=50", "samples=2", "validation_freq=100",
            "unet_openai={base_channels: 32, channel_mult: [1, 1, 1, 1], num_res_blocks: 1, attention_resolutions: []}",
            f"feature_cond_encoder={{type: dino, target_layer: 7, weights: '{dino_file}'}}",
        ]  # fmt: skip
        ddpm_train.main(tiny.train_argv(None, tmp_path / name, *argv, *changes))
        return load_checkpoint(tmp_path / name / "last.pt")

    return run


def test_training_saves_no_frozen_weights_and_resumes(train: Train, tmp_path: Path) -> None:
    whole = train("whole", f"feature_cond_encoder.cache={tmp_path}/cache")
    assert all(name.startswith("unet.") for name in (*whole["model"], *whole["average"]))
    assert whole["encoder"]["digest"] == dinos.frozen().digest
    assert len(list((tmp_path / "cache").rglob("*.pt"))) >= 4
    train("again", f"load_from={tmp_path}/whole/last.pt")
    assert restore(load_checkpoint(tmp_path / "again" / "last.pt")).sample(dinos.images(1), steps=2).labels.any()


@pytest.mark.slow
def test_training_trains_the_encoder_where_it_is_told_to(train: Train) -> None:
    trained = train("trained", "feature_cond_encoder.train=yes")
    name = "blocks.11.attn.qkv.weight"
    model, average = (trained[part][f"encoder.vit.{name}"] for part in ("model", "average"))
    assert not torch.equal(model, dinos.weights()[name])
    assert not torch.equal(average, dinos.weights()[name])


@pytest.mark.slow
def test_frozen_encoder_of_an_official_file_is_trained_where_it_is_told_to(train: Train, tmp_path: Path) -> None:
    encoder = {f"module.extractor.model.{name}": tensor for name, tensor in dinos.weights().items()}
    torch.save({"model": dinos.model().unet.state_dict(), "cond_encoder": encoder}, tmp_path / "that.pt")
    frozen = train("frozen", f"load_from={tmp_path}/that.pt")
    assert not any(name.startswith("encoder.") for name in frozen["model"])
    trained = train("trained", f"load_from={tmp_path}/that.pt", "feature_cond_encoder.train=yes")
    name = "blocks.11.attn.qkv.weight"
    moved = trained["model"][f"encoder.vit.{name}"] - dinos.weights()[name]
    assert 0 < moved.abs().max() < 0.01
    train("trained_on", f"load_from={tmp_path}/trained/last.pt", "feature_cond_encoder.train=yes", "time_steps=250")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("feature_cond_encoder.channels=768", "takes 768 channels of features at stride 8; dino_vits8 makes 384"),
        ("feature_cond_encoder.target_layer=6", "target_layer 6.*take 7"),
        ("feature_cond_encoder.output_stride=16", "must divide the 8 pixels"),
        ("feature_cond_encoder.weights=nowhere.pth", "there is no file nowhere.pth"),
        ("unet_openai.channel_mult=[1, 1]", "the network goes down to 2"),
        ("feature_cond_encoder.type=clip", "feature_cond_encoder.type"),
        ("feature_cond_encoder={train: yes, cache: there}", "take cache: null"),
    ],
)
def test_settings_that_do_not_fit_are_refused(train: Train, tmp_path: Path, change: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        train("refused", change)
    assert not (tmp_path / "refused").exists()
