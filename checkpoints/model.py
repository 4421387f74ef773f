"""A model as plain data, for checkpoints, and back."""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

from checkpoints.encoder_weights import build_encoder
from checkpoints.weights import load_weights
from models.ccdm import CCDM, ProcessConfig
from models.dino import DinoEncoder, Encoder, EncoderConfig, FrozenEncoder
from models.unet import FeatureCondition, UNetConfig
from utils.errors import UserError


class ModelConfig(NamedTuple):
    """All that is needed to build a model, but for the weights."""

    network: UNetConfig
    process: ProcessConfig
    encoder: EncoderConfig | None = None


def to_config_dict(network: UNetConfig, process: ProcessConfig, encoder: Encoder | None = None) -> dict[str, Any]:
    """The shape of a model as plain data, under the names that checkpoints use.

    A frozen encoder's weights are not saved with a model; their digest is, so that they are known again.
    """
    described = {"network": dataclasses.asdict(network), "process": dataclasses.asdict(process)}
    if encoder is not None:
        digest = encoder.digest if isinstance(encoder, FrozenEncoder) else None
        described["encoder"] = {**dataclasses.asdict(encoder.shape), "digest": digest}
    return described


def config_from_checkpoint(contents: Mapping[str, Any]) -> ModelConfig:
    """The shapes in a checkpoint's contents.

    Raises:
        UserError: where they do not describe a model.
    """
    try:
        network = dict(contents["network"])
        if network.get("feature") is not None:
            network["feature"] = FeatureCondition(**network["feature"])
        encoder = {name: value for name, value in contents.get("encoder", {}).items() if name != "digest"}
        return ModelConfig(
            UNetConfig(**network), ProcessConfig(**contents["process"]), EncoderConfig(**encoder) if encoder else None
        )
    except TypeError as error:
        raise UserError(f"the checkpoint does not describe a network that this software knows: {error}") from error


def restore(contents: Mapping[str, Any], encoder_weights: str | None = None) -> CCDM:
    """The model of a checkpoint with its averaged weights, ready to sample.

    Args:
        contents: of the checkpoint.
        encoder_weights: file of a frozen encoder's weights; None takes the one that training took.

    Raises:
        UserError: where the weights do not fit the network that the checkpoint describes, or the encoder's cannot be
            had or are others than in training.
    """
    shapes = config_from_checkpoint(contents)
    encoder = None if shapes.encoder is None else restore_encoder(shapes.encoder, contents, encoder_weights)
    model = CCDM(shapes.network, shapes.process, encoder)
    load_weights(model, contents["average"])
    return model.eval().requires_grad_(False)


def restore_encoder(
    shape: EncoderConfig, contents: Mapping[str, Any], weights: str | None = None, cache: str | None = None
) -> Encoder:
    """The encoder of a checkpoint; one that was trained awaits its weights, which come with the network's.

    Raises:
        UserError: where a frozen encoder's weights cannot be had, or are others than in training.
    """
    if shape.train:
        return DinoEncoder(shape)
    if weights is None:
        trained_with = contents["settings"].get("feature_cond_encoder", {}).get("weights")
        weights = contents.get("encoder_weights", trained_with)
    encoder = build_encoder(shape, weights, cache)
    check_digest(encoder, contents)
    return encoder


def check_digest(encoder: Encoder | None, contents: Mapping[str, Any]) -> None:
    """See that a frozen encoder has the weights that a checkpoint's network was trained with.

    Raises:
        UserError: where it has others.
    """
    digest = contents.get("encoder", {}).get("digest")
    if isinstance(encoder, FrozenEncoder) and digest is not None and digest != encoder.digest:
        raise UserError(
            f"the weights of {encoder.shape.model} are not those that the checkpoint was trained with; name their file "
            f"in feature_cond_encoder.weights"
        )
