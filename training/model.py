"""The model of a training: its config from the settings, and its first weights."""

from collections.abc import Mapping
from typing import Any

import torch

from checkpoints.encoder_weights import build_encoder
from checkpoints.model import model_config as config_from_checkpoint
from checkpoints.model import restore_encoder
from checkpoints.weights import load_weights
from models import CCDM, Encoder, EncoderConfig, ModelConfig, Part, build_network, build_process
from training.settings import FeatureSettings, TrainSettings
from utils.config import validate
from utils.errors import UserError
from utils.logs import LOGGER
from utils.noise import seed_from

Contents = Mapping[str, Any]

DERIVED = ("num_classes", "image_channels", "num_states", "feature")
"""Parameters of a network that follow from the dataset, the process and the encoder."""


def model_config(settings: TrainSettings, num_classes: int, image_channels: int) -> ModelConfig:
    """The config of the model that the settings describe, for a dataset of these sizes.

    Raises:
        UserError: for parameters of network and process that cannot be set.
    """
    for key, derived in (("network_params", DERIVED), ("process_params", ("num_classes",))):
        for name in set(derived) & getattr(settings, key).keys():
            raise UserError(f"{key}.{name} follows from the dataset and the other settings; remove it")
    sizes, features = {"num_classes": num_classes, "image_channels": image_channels}, settings.feature_cond_encoder
    encoder, condition = None, {}
    if features is not None:
        encoder = EncoderConfig(**{name: getattr(features, name) for name in EncoderConfig.model_fields})
        condition["feature"] = {
            "channels": encoder.architecture.channels,
            "output_stride": encoder.output_stride,
            "target_layer": features.target_layer,
        }
    return ModelConfig(
        network=Part(module=settings.network, params={**sizes, **settings.network_params, **condition}),
        process=Part(module=settings.process, params={"num_classes": num_classes, **settings.process_params}),
        encoder=encoder,
    )


def create_model(settings: TrainSettings, config: ModelConfig, checkpoint: Contents | None) -> CCDM:
    """Create the model with random weights from the settings' seed.

    Args:
        settings: of the training.
        config: see `model_config`.
        checkpoint: contents of the checkpoint that the training starts from, if any: it knows its encoder's weights.

    Raises:
        UserError: if the model cannot be built, or the weights of a pretrained encoder are not available.
    """
    encoder = _create_encoder(settings, config.encoder, checkpoint)
    torch.manual_seed(seed_from("weights", settings.seed))
    process = build_process(config.process)
    network = build_network(config.network, process)
    if settings.use_checkpoint:
        parts = [module for module in network.modules() if hasattr(module, "use_checkpoint")]
        if not parts:
            raise UserError(f"use_checkpoint: the network of {settings.network} does not support it")
        for part in parts:
            part.use_checkpoint = True  # type: ignore[assignment]
    return CCDM(network, process, encoder)


def adopt_network(settings: TrainSettings, checkpoint: Contents, path: str) -> TrainSettings:
    """Replace the network and encoder of the settings by those of a checkpoint; dropout stays as the settings say.

    Raises:
        UserError: if the checkpoint's network comes from another module than the settings name.
    """
    config = config_from_checkpoint(checkpoint)
    if config.network.module != settings.network:
        raise UserError(
            f"init_from: the network of {path} is {config.network.module}, but the settings say {settings.network}"
        )
    params = {name: value for name, value in config.network.params.items() if name not in (*DERIVED, "dropout")}
    params |= {name: value for name, value in settings.network_params.items() if name == "dropout"}
    LOGGER.info("init_from: the network is that of %s: %s", path, params)
    features: dict[str, Any] | None = None
    if config.encoder is not None:
        own = settings.feature_cond_encoder or FeatureSettings()
        trained_with = checkpoint["settings"].get("feature_cond_encoder") or {}
        features = config.encoder.model_dump() | {
            "train": config.encoder.train or own.train,
            "target_layer": config.network.params["feature"]["target_layer"],
            "weights": own.weights or trained_with.get("weights", path if "encoder_weights" in checkpoint else None),
        }
    values = settings.model_dump() | {"network_params": params, "feature_cond_encoder": features}
    return validate(TrainSettings, values, path)


def load_initial_weights(model: CCDM, checkpoint: Contents) -> None:
    """Load the averaged weights of a checkpoint; an encoder that was frozen there keeps its pretrained weights.

    Raises:
        UserError: for weights of another network.
    """
    pretrained = {name: tensor for name, tensor in model.state_dict().items() if name.startswith("encoder.")}
    load_weights(model, {**pretrained, **checkpoint["average"]})


def _create_encoder(
    settings: TrainSettings, config: EncoderConfig | None, checkpoint: Contents | None
) -> Encoder | None:
    features = settings.feature_cond_encoder
    if config is None or features is None:
        return None
    if checkpoint is None:
        return build_encoder(config, features.weights)
    trained = config_from_checkpoint(checkpoint).encoder
    if config.train and trained is not None and not trained.train:
        return build_encoder(config, features.weights or checkpoint.get("encoder_weights"))
    return restore_encoder(config, checkpoint, features.weights)
