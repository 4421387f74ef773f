"""Models in checkpoints: configurations as plain data, and models built from them."""

from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import nn

from checkpoints.encoder_weights import build_encoder
from checkpoints.weights import check_weights, load_weights
from models.build import NETWORKS, PROCESSES, ModelConfig, build_network, build_process, refuse_untrusted
from models.ccdm import CCDM
from models.dino import DinoEncoder, Encoder, EncoderConfig, FrozenEncoder
from utils.config import Config, validate
from utils.errors import UserError
from utils.logs import LOGGER


def to_config_dict(model: CCDM, config: ModelConfig) -> dict[str, Any]:
    """The entries of a checkpoint that describe its model, as plain data.

    The parameters of a network or process that has a config are stored completely, defaults included. A frozen
    encoder's weights are not stored; their digest is, so that other weights can be refused.
    """
    parts = {
        "network": config.network.model_copy(update={"params": _complete(model.network, config.network.params)}),
        "process": config.process.model_copy(update={"params": _complete(model.process, config.process.params)}),
    }
    entries = {name: part.model_dump(mode="json") for name, part in parts.items()}
    if model.encoder is not None:
        digest = model.encoder.digest if isinstance(model.encoder, FrozenEncoder) else None
        entries["encoder"] = {**model.encoder.config.model_dump(mode="json"), "digest": digest}
    return entries


def model_config(contents: Mapping[str, Any]) -> ModelConfig:
    """The configuration of the model in a checkpoint's contents. Raises UserError if the contents do not describe a
    model."""
    entries = {name: contents.get(name) for name in ("network", "process", "encoder")}
    if isinstance(entries["encoder"], Mapping):
        if "model" not in entries["encoder"]:  # the default would be downloaded
            raise UserError("the checkpoint is damaged: its encoder has no `model`")
        entries["encoder"] = {name: value for name, value in entries["encoder"].items() if name != "digest"}
    return validate(ModelConfig, entries, "the checkpoint's model")


def build_model(contents: Mapping[str, Any], encoder_weights: str | None = None, trusted: Collection[str] = ()) -> CCDM:
    """Build the model of a checkpoint with its averaged weights, in evaluation mode.

    The weights of a frozen encoder are read from the file `encoder_weights`, by default the one that training used. Of
    modules outside this project, only those that the user has named (`trusted`) may be imported. Raises UserError if
    the checkpoint names another one, its weights do not fit its network, or the encoder's are missing or differ from
    those of the training.
    """
    config = model_config(contents)
    refuse_untrusted(config, trusted)
    check_network(config, contents["average"])
    encoder = None if config.encoder is None else restore_encoder(config.encoder, contents, encoder_weights)
    process = build_process(config.process)
    model = CCDM(build_network(config.network, process), process, encoder)
    load_weights(model, contents["average"])
    return model.eval().requires_grad_(False)


def check_network(config: ModelConfig, weights: Mapping[str, Any]) -> None:
    """Check that weights are those of a network of this software, before memory is allocated for it: the config in a
    file can describe one of any size. Raises UserError, naming the first tensor that differs."""
    if config.network.module in NETWORKS and config.process.module in PROCESSES:
        process = build_process(config.process)
        with torch.device("meta"):
            network = build_network(config.network, process)
        expected = {f"network.{name}": tensor for name, tensor in network.state_dict().items()}
        stored = {name: tensor for name, tensor in weights.items() if name.startswith("network.")}
        check_weights(expected, stored, "the checkpoint")


def restore_encoder(config: EncoderConfig, contents: Mapping[str, Any], weights: str | None = None) -> Encoder:
    """The encoder of a checkpoint. The weights of a trained one are loaded together with those of the network. Raises
    UserError if the weights of a frozen encoder are missing or differ from those of the training."""
    if config.train:
        return DinoEncoder(config)
    if weights is None:
        trained_with = (contents["settings"].get("feature_cond_encoder") or {}).get("weights")
        weights = contents.get("encoder_weights", trained_with)
        if isinstance(weights, str):
            LOGGER.info("the encoder's weights are read from %s, as in training", weights)
    encoder = build_encoder(config, weights)
    check_digest(encoder, contents)
    return encoder


def check_digest(encoder: Encoder | None, contents: Mapping[str, Any]) -> None:
    """Check that a frozen encoder has the weights that the checkpoint's network was trained with. Raises UserError if
    it has others."""
    digest = (contents.get("encoder") or {}).get("digest")
    if isinstance(encoder, FrozenEncoder) and digest is not None and digest != encoder.digest:
        raise UserError(
            f"the weights of {encoder.config.model} differ from those that the checkpoint was trained with; name the "
            f"right file in feature_cond_encoder.weights"
        )


def _complete(built: nn.Module, params: dict[str, Any]) -> dict[str, Any]:
    config = getattr(built, "config", None)
    return params | config.model_dump(mode="json") if isinstance(config, Config) else params
