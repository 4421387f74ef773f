"""A model as plain data, for checkpoints, and back."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from torch import nn

from models.ccdm import CCDM, ProcessShape
from models.unet import FeatureCondition, UNetShape
from utils.errors import UserError


def describe(network: UNetShape, process: ProcessShape) -> dict[str, dict[str, Any]]:
    """The shape of a model as plain data, under the names that checkpoints use."""
    return {"network": dataclasses.asdict(network), "process": dataclasses.asdict(process)}


def shapes_of(contents: Mapping[str, Any]) -> tuple[UNetShape, ProcessShape]:
    """The shapes in a checkpoint's contents.

    Raises:
        UserError: where they do not describe a model.
    """
    try:
        network = dict(contents["network"])
        if network.get("feature") is not None:
            network["feature"] = FeatureCondition(**network["feature"])
        return UNetShape(**network), ProcessShape(**contents["process"])
    except TypeError as error:
        raise UserError(f"the checkpoint does not describe a network that this software knows: {error}") from error


def restore(contents: Mapping[str, Any]) -> CCDM:
    """The model of a checkpoint with its averaged weights, ready to sample.

    Raises:
        UserError: where the weights do not fit the network that the checkpoint describes.
    """
    model = CCDM(*shapes_of(contents))
    load_weights(model, contents["average"])
    return model.eval().requires_grad_(False)


def load_weights(model: nn.Module, weights: Mapping[str, Any]) -> None:
    """Load weights of exactly the same names and shapes.

    Raises:
        UserError: naming the first tensor that is missing, unknown, or of another shape.
    """
    expected = model.state_dict()
    for name, tensor in expected.items():
        if name not in weights:
            raise UserError(f"the checkpoint is of another network: it lacks the tensor {name}")
        if weights[name].shape != tensor.shape:
            raise UserError(
                f"the checkpoint is of another network: {name} has shape {tuple(weights[name].shape)} there, "
                f"{tuple(tensor.shape)} here"
            )
    unknown = [name for name in weights if name not in expected]
    if unknown:
        raise UserError(f"the checkpoint is of another network: the tensor {unknown[0]} has no place here")
    model.load_state_dict(weights)
