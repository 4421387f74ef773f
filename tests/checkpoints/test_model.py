"""A model as plain data and back."""

import copy
from typing import Any

import pytest
import torch

from checkpoints.model import config_from_checkpoint, restore, to_config_dict
from checkpoints.weights import load_weights
from models import FeatureCondition, ProcessConfig, UNetConfig
from tests import tiny
from tests.models import dinos
from utils.errors import UserError


@pytest.fixture
def contents() -> dict[str, Any]:
    """What a checkpoint of a model holds; weights and average differ."""
    average = tiny.model()
    weights = {name: torch.zeros_like(tensor) for name, tensor in average.state_dict().items()}
    shapes = to_config_dict(tiny.network_shape(), tiny.PROCESS)
    return {**shapes, "model": weights, "average": copy.deepcopy(average.state_dict())}


def test_restored_model_predicts_like_the_average(contents: dict[str, Any]) -> None:
    model, images = restore(contents), tiny.images(2)
    x_t, t = torch.zeros(2, tiny.SIDE, tiny.SIDE, dtype=torch.uint8), torch.tensor([3, 40])
    assert torch.equal(model(x_t, t, images), tiny.model()(x_t, t, images))
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert model.process.time_steps == tiny.PROCESS.time_steps


def test_shapes_come_back_from_plain_data() -> None:
    network = UNetConfig(5, 3, 64, (1, 1, 2, 2), (2,), 2, 2, -1, 0.25, FeatureCondition(384, 8, 10))
    process = ProcessConfig(100, "linear", {"first": 0.02})
    described = to_config_dict(network, process, dinos.frozen())
    assert all(isinstance(described[name], dict) for name in ("network", "process", "encoder"))
    assert isinstance(described["network"]["feature"], dict)
    assert config_from_checkpoint(described) == (network, process, dinos.SHAPE)
    assert config_from_checkpoint(to_config_dict(network, process)) == (network, process, None)


@pytest.mark.parametrize("part", ["network", "process"])
def test_shape_that_is_not_known_is_refused(contents: dict[str, Any], part: str) -> None:
    contents[part]["hyperspheres"] = 3
    with pytest.raises(UserError, match="hyperspheres"):
        config_from_checkpoint(contents)


def test_weights_of_another_network_are_refused(contents: dict[str, Any]) -> None:
    contents["network"]["base_channels"] = 64
    with pytest.raises(UserError, match=r"another network: unet\.\S+ has shape .* there, .* here"):
        restore(contents)


def test_missing_tensor_is_named() -> None:
    model = tiny.model()
    weights = dict(model.state_dict())
    del weights["unet.out.2.bias"]
    with pytest.raises(UserError, match=r"lacks the tensor unet\.out\.2\.bias"):
        load_weights(model, weights)


def test_tensor_without_a_place_is_named_and_nothing_is_loaded() -> None:
    model = tiny.model()
    before = copy.deepcopy(model.state_dict())
    weights = {name: torch.zeros_like(tensor) for name, tensor in before.items()}
    with pytest.raises(UserError, match="tensor extra has no place"):
        load_weights(model, {**weights, "extra": torch.ones(1)})
    assert tiny.same(dict(model.state_dict()), dict(before))
