"""From settings to shapes, and from a checkpoint's shapes to settings."""

import dataclasses

import pytest

from checkpoints.model import ModelConfig
from models import EncoderConfig, FeatureCondition, ProcessConfig, UNetConfig
from tests import tiny
from training.from_settings import adopt_shapes, check_same, shapes_from
from utils.errors import UserError
from utils.schema import TrainSettings
from utils.settings import load_settings

CITYSCAPES = UNetConfig(20, 3, 64, (1, 1, 2, 2, 4, 4), (32, 16, 8))


def settings_of(*changes: str) -> TrainSettings:
    return load_settings(TrainSettings, [str(tiny.ROOT / "params.yml"), *changes], default_file="")


@pytest.mark.parametrize(("target_layer", "model", "channels"), [(10, "dino_vits8", 384), (11, "dino_vitb8", 768)])
def test_shipped_cityscapes_settings_take_features(target_layer: int, model: str, channels: int) -> None:
    joint = f"target_layer: {target_layer}, model: {model}, channels: {channels}"
    settings = settings_of("dataset_file=datasets.cityscapes", f"feature_cond_encoder={{type: dino, {joint}}}")
    expected = dataclasses.replace(CITYSCAPES, feature=FeatureCondition(channels, 8, target_layer))
    assert shapes_from(settings, 20, 3) == (expected, ProcessConfig(), EncoderConfig(model, 11, 8, False))


def test_shipped_settings_take_no_features_by_default() -> None:
    assert shapes_from(settings_of("dataset_file=datasets.cityscapes"), 20, 3) == (CITYSCAPES, ProcessConfig(), None)


SHAPES = [
    ModelConfig(
        UNetConfig(4, 3, 64, (1, 2), (2,), 3, 2, -1), ProcessConfig(60, "linear", {"first": 0.02, "last": 0.3})
    ),
    ModelConfig(
        dataclasses.replace(CITYSCAPES, feature=FeatureCondition(768, 8, 11)),
        ProcessConfig(),
        EncoderConfig("dino_vitb8", 9, 8, True),
    ),
]


@pytest.mark.parametrize("shapes", SHAPES, ids=["no features", "features"])
def test_adopted_settings_ask_for_the_checkpoints_shapes(shapes: ModelConfig) -> None:
    contents = {name: dataclasses.asdict(shape) for name, shape in shapes._asdict().items() if shape is not None}
    sizes = shapes.network.num_classes, shapes.network.image_channels
    settings = settings_of("feature_cond_encoder.weights=dino.pth", "batch_size=5", "unet_openai.dropout=0.1")
    adopted = adopt_shapes(settings, contents, *sizes)
    dropping = shapes._replace(network=dataclasses.replace(shapes.network, dropout=0.1))
    assert shapes_from(adopted, *sizes) == dropping
    assert (adopted.batch_size, adopted.feature_cond_encoder.weights) == (5, "dino.pth")
    with pytest.raises(UserError, match="the data have 2 and 3"):
        adopt_shapes(settings, contents, 2, 3)


def test_first_difference_is_named() -> None:
    here = SHAPES[0]
    check_same(here, here, "that.pt")
    there = here._replace(process=ProcessConfig(60))
    with pytest.raises(UserError, match=r"that\.pt is of another network: beta_schedule is cosine there and linear"):
        check_same(there, here, "that.pt")
    with pytest.raises(UserError, match="model is dino_vitb8 there and None in these settings"):
        check_same(here._replace(encoder=SHAPES[1].encoder), here, "that.pt")
