"""The model of a training: from its settings, and with the network of a checkpoint."""

from typing import Any

import pytest

from models import EncoderConfig, FeatureCondition, UNetConfig
from models.build import build_network, build_process
from tests import tiny
from training.model import adopt_network, create_model, model_config
from training.settings import TrainSettings
from utils.errors import UserError
from utils.settings import load_settings

CITYSCAPES = {"num_classes": 20, "image_channels": 3, "base_channels": 64, "channel_mult": (1, 1, 2, 2, 4, 4)}


def settings_of(*changes: str) -> TrainSettings:
    arguments = [str(tiny.ROOT / "params.yml"), "dataset_file=datasets.cityscapes", *changes]
    return load_settings(TrainSettings, arguments, default_file="")


def test_shipped_cityscapes_settings_have_no_features_by_default() -> None:
    config = model_config(settings_of(), 20, 3)
    assert build_network(config.network, build_process(config.process)).config == UNetConfig(**CITYSCAPES)
    assert config.encoder is None


@pytest.mark.parametrize(("target_layer", "model", "channels"), [(10, "dino_vits8", 384), (11, "dino_vitb8", 768)])
def test_one_setting_adds_features(target_layer: int, model: str, channels: int) -> None:
    change = [f"feature_cond_encoder.target_layer={target_layer}"] if target_layer != 10 else []
    config = model_config(settings_of(f"feature_cond_encoder.model={model}", *change), 20, 3)
    feature = FeatureCondition(channels=channels, output_stride=8, target_layer=target_layer)
    expected = UNetConfig(**CITYSCAPES, feature=feature)
    assert UNetConfig(**config.network.params) == expected
    assert config.encoder == EncoderConfig(model=model)


@pytest.mark.parametrize("name", ["num_classes", "image_channels", "feature"])
def test_parameters_that_follow_from_others_are_refused(name: str) -> None:
    with pytest.raises(UserError, match=f"network_params.{name} follows from the dataset"):
        model_config(settings_of(f"network_params.{name}=3"), 20, 3)
    with pytest.raises(UserError, match=r"process_params\.num_classes follows from the dataset"):
        model_config(settings_of("process_params.num_classes=3"), 20, 3)


def test_checkpointing_needs_a_network_that_supports_it(user_module: Any) -> None:
    user_module("plain_network", "import torch\ndef get_network(**params): return torch.nn.Identity()")
    arguments = ["dataset_file=datasets.cityscapes", "network=plain_network", "use_checkpoint=true"]
    settings = load_settings(TrainSettings, [str(tiny.ROOT / "params.yml"), *arguments], default_file="")
    with pytest.raises(UserError, match="use_checkpoint: the network of plain_network does not support it"):
        create_model(settings, model_config(settings, 20, 3), None)


FEATURE = {"channels": 768, "output_stride": 8, "target_layer": 11}
CHECKPOINT: dict[str, Any] = {
    "network": {"module": "models.unet", "params": {**CITYSCAPES, "dropout": 0.0, "feature": FEATURE}},
    "process": {"module": "diffusion.uniform", "params": {"num_classes": 20}},
    "encoder": {"model": "dino_vitb8", "source_layer": 9, "output_stride": 8, "train": False, "digest": "abc"},
    "settings": {"feature_cond_encoder": {"weights": "there.pth"}},
}


@pytest.mark.parametrize(
    ("changes", "train", "weights"),
    [
        ([], False, "there.pth"),
        (["feature_cond_encoder={weights: here.pth, model: dino_vits8}"], False, "here.pth"),
        (["feature_cond_encoder.train=true"], True, "there.pth"),
    ],
)
def test_encoder_of_the_checkpoint_is_taken_and_may_be_unfrozen(changes: list[str], train: bool, weights: str) -> None:
    settings = adopt_network(settings_of("network_params.dropout=0.1", "batch_size=5", *changes), CHECKPOINT, "that.pt")
    features = settings.feature_cond_encoder
    assert features is not None
    assert (features.model, features.source_layer, features.target_layer) == ("dino_vitb8", 9, 11)
    assert (features.train, features.weights) == (train, weights)
    assert settings.network_params["dropout"] == 0.1
    assert settings.batch_size == 5
    config = model_config(settings, 20, 3)
    assert UNetConfig(**config.network.params) == UNetConfig(
        **CITYSCAPES, dropout=0.1, feature=FeatureCondition(**FEATURE)
    )
