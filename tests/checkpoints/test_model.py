"""Models in checkpoints: described by plain data, and built again from it."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch

from checkpoints.model import build_model, model_config, to_config_dict
from checkpoints.weights import load_weights
from diffusion import UniformConfig
from models import CCDM, ModelConfig, Part, build_network, build_process
from tests import tiny
from tests.models import dinos
from utils.errors import UserError


@pytest.fixture
def contents() -> dict[str, Any]:
    """What a checkpoint of a model contains; weights and average differ."""
    model, sizes = tiny.model(), {"num_classes": 2, "image_channels": 1}
    config = ModelConfig(
        network=Part(module="models.unet", params=sizes),
        process=Part(module="diffusion.uniform", params={"num_classes": 2}),
    )
    weights = {name: torch.zeros_like(tensor) for name, tensor in model.state_dict().items()}
    return {**to_config_dict(model, config), "settings": {}, "model": weights, "average": model.state_dict()}


def with_features(model: CCDM, file: Path | None) -> dict[str, Any]:
    """What a checkpoint contains whose encoder has the weights of a file."""
    config = ModelConfig(
        network=Part(module="models.unet", params=dinos.NETWORK.model_dump(mode="json")),
        process=Part(module="diffusion.uniform", params={"num_classes": 3}),
        encoder=dinos.CONFIG,
    )
    settings = {"feature_cond_encoder": {"weights": None if file is None else str(file)}}
    return {**to_config_dict(model, config), "settings": settings, "average": model.state_dict()}


def test_built_model_predicts_like_the_average(contents: dict[str, Any]) -> None:
    model, images = build_model(contents), tiny.images(2)
    x_t, t = torch.zeros(2, tiny.SIDE, tiny.SIDE, dtype=torch.uint8), torch.tensor([3, 40])
    assert torch.equal(model(x_t, t, images), tiny.model()(x_t, t, images))
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_configs_are_stored_completely_as_plain_data(contents: dict[str, Any]) -> None:
    config = model_config(contents)
    assert config.network.params == tiny.unet_config().model_dump(mode="json")
    assert config.process.params == {"num_classes": 2, **UniformConfig(time_steps=50).model_dump()}
    assert config.encoder is None
    described = with_features(dinos.model(), None)
    assert described["encoder"] == {**dinos.CONFIG.model_dump(), "digest": dinos.frozen().digest}
    assert model_config(described).encoder == dinos.CONFIG
    process = build_process(model_config(described).process)
    assert build_network(model_config(described).network, process).config == dinos.NETWORK


@pytest.mark.parametrize("part", ["network", "process"])
def test_unknown_entries_and_parameters_are_refused(contents: dict[str, Any], part: str) -> None:
    with pytest.raises(UserError, match=f"the checkpoint's model: unknown key `{part}.hyperspheres`"):
        model_config({**contents, part: {**contents[part], "hyperspheres": 3}})
    contents[part]["params"]["hyperspheres"] = 3
    with pytest.raises(UserError, match=f"{part}_params: unknown key `hyperspheres`"):
        build_model(contents)


@pytest.mark.parametrize("encoder", [{}, {"digest": "abc"}])
def test_encoder_without_a_name_is_refused(contents: dict[str, Any], encoder: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="the checkpoint is damaged: its encoder has no `model`"):
        build_model({**contents, "encoder": encoder})


def test_weights_of_another_network_are_refused(contents: dict[str, Any]) -> None:
    contents["network"]["params"]["base_channels"] = 64
    with pytest.raises(UserError, match=r"another network: network\.\S+ has shape .* there, .* here"):
        build_model(contents)


def test_missing_and_unexpected_tensors_are_named_and_nothing_is_loaded() -> None:
    model = tiny.model()
    before = copy.deepcopy(model.state_dict())
    weights = {name: torch.zeros_like(tensor) for name, tensor in before.items()}
    with pytest.raises(UserError, match="an unexpected tensor extra"):
        load_weights(model, {**weights, "extra": torch.ones(1)})
    del weights["network.out.2.bias"]
    with pytest.raises(UserError, match=r"lacks the tensor network\.out\.2\.bias"):
        load_weights(model, weights)
    assert tiny.same(dict(model.state_dict()), dict(before))


@torch.no_grad()
@pytest.mark.parametrize("train", [False, True])
def test_model_with_features_is_built_again(dino_file: Path, train: bool) -> None:
    model = dinos.model(dinos.encoder(dinos.TRAINED)) if train else dinos.model()
    again = build_model(with_features(model, None if train else dino_file))
    images, t, x_t = dinos.images(2), torch.tensor([5, 30]), torch.zeros(2, *dinos.SIDES, dtype=torch.uint8)
    # not to the bit: on some CPUs the result of a layer depends on where its weights are in memory
    torch.testing.assert_close(again(x_t, t, images), model(x_t, t, images), rtol=0, atol=1e-4)


def test_weights_of_the_encoder_must_be_those_of_the_training(dino_file: Path, tmp_path: Path) -> None:
    contents = with_features(dinos.model(), Path("/nowhere/dino.pth"))
    with pytest.raises(UserError, match=r"there is no file /nowhere/dino\.pth"):
        build_model(contents)
    assert build_model(contents, str(dino_file)).encoder is not None
    torch.save({**dinos.weights(), "norm.bias": torch.ones(384)}, tmp_path / "other.pth")
    with pytest.raises(UserError, match="differ from those that the checkpoint was trained with"):
        build_model(contents, str(tmp_path / "other.pth"))
