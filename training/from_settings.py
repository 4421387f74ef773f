"""What a training's settings say of the model, and settings that say what a file's model is."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from checkpoints.encoder_weights import build_encoder
from checkpoints.model import ModelConfig, config_from_checkpoint, restore_encoder
from models.ccdm import ProcessConfig
from models.dino import DinoEncoder, Encoder, EncoderConfig
from models.unet import FeatureCondition, UNetConfig
from utils.errors import UserError
from utils.schema import FeatureSettings, Network, TrainSettings
from utils.settings import check_settings

Contents = Mapping[str, Any]


def shapes_from(settings: TrainSettings, num_classes: int, image_channels: int) -> ModelConfig:
    """The shapes of network, process and encoder that settings and data ask for.

    Raises:
        UserError: where no such network or encoder can be built.
    """
    net = {name: _tuples(value) for name, value in settings.unet_openai}
    process = ProcessConfig(settings.time_steps, settings.beta_schedule, settings.beta_schedule_params)
    if settings.objective == "cross_entropy":
        process = ProcessConfig(1, "single_jump")
    features = settings.feature_cond_encoder
    if features.type == "none":
        return ModelConfig(UNetConfig(num_classes, image_channels, **net), process)
    joint = FeatureCondition(features.channels, features.output_stride, features.target_layer)
    encoder = EncoderConfig(features.model, features.source_layer, features.output_stride, features.train)
    return ModelConfig(UNetConfig(num_classes, image_channels, **net, feature=joint), process, encoder)


def adopt_shapes(settings: TrainSettings, contents: Contents, num_classes: int, image_channels: int) -> TrainSettings:
    """The settings with the network, process and encoder of a checkpoint in the place of their own.

    Raises:
        UserError: where the checkpoint's network is for other classes or images than the data's.
    """
    network, process, encoder = config_from_checkpoint(contents)
    if (network.num_classes, network.image_channels) != (num_classes, image_channels):
        raise UserError(
            f"the checkpoint's network has {network.num_classes} classes and images of {network.image_channels} "
            f"channels; the data have {num_classes} and {image_channels}"
        )
    features: dict[str, Any] = {"type": "none"}
    if network.feature is not None and encoder is not None:
        features = {"type": "dino", **dataclasses.asdict(encoder), **dataclasses.asdict(network.feature)}
    net = {name: getattr(network, name) for name in Network.model_fields if name != "dropout"}
    values = settings.model_dump(mode="json")
    values |= dataclasses.asdict(process)
    values["unet_openai"] |= {name: list(value) if isinstance(value, tuple) else value for name, value in net.items()}
    values["feature_cond_encoder"] |= features
    return check_settings(TrainSettings, values, "the checkpoint's model")


def unfrozen(contents: Contents, weights: str | None) -> Contents:
    """The contents of a checkpoint whose frozen encoder is to be trained from now on: its weights join the model's.

    Args:
        contents: of the checkpoint.
        weights: file of the encoder's weights; None takes the checkpoint's own, or the hub's.

    Raises:
        UserError: where the encoder's weights cannot be had.
    """
    frozen = config_from_checkpoint(contents).encoder
    if frozen is None or frozen.train:
        return contents
    shape = dataclasses.replace(frozen, train=True)
    encoder = build_encoder(shape, contents.get("encoder_weights") if weights is None else weights)
    assert isinstance(encoder, DinoEncoder)
    tensors = {f"encoder.{name}": tensor for name, tensor in encoder.state_dict().items()}
    trained = {name: {**contents[name], **tensors} for name in ("model", "average")}
    return {**contents, **trained, "encoder": {**contents["encoder"], "train": True}}


def make_encoder(shape: EncoderConfig | None, settings: FeatureSettings, start: Contents | None) -> Encoder | None:
    """The encoder of a training that starts from nothing or from the contents of a checkpoint.

    Raises:
        UserError: where its weights cannot be had, or are others than the checkpoint's.
    """
    if shape is None:
        return None
    if start is None:
        return build_encoder(shape, settings.weights, settings.cache)
    return restore_encoder(shape, start, settings.weights, settings.cache)


def check_same(there: ModelConfig, here: ModelConfig, source: str) -> None:
    """See that the model of a checkpoint, which comes from `source`, is the one of the settings.

    Raises:
        UserError: naming what differs first.
    """
    for one, other in zip(there, here, strict=True):
        if one != other:
            raise UserError(f"{source} is of another network: {_first_difference(one, other)}")


def _tuples(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _first_difference(there: Any, here: Any) -> str:
    for field in dataclasses.fields(here or there):
        one, other = (getattr(shape, field.name, None) for shape in (there, here))
        if one != other:
            return f"{field.name} is {one} there and {other} in these settings"
    return "they differ"
