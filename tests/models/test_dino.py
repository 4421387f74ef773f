"""DINO's features: equal to the original's on any grid, from weights that are frozen unless training is requested."""

import copy
import math
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError
from torch import Tensor

from models import DinoEncoder, EncoderConfig
from models.dino import positions
from tests import golden_rule
from tests.models import dinos
from utils.errors import UserError

SIDE = 28  # side of the grid of 8-pixel patches in pretraining


def patches_by_hand(weights: dict[str, Tensor], image: Tensor, stride: int) -> Tensor:
    """Embedded 8 x 8 patches every `stride` pixels of an image (3 x H x W): patches x channels."""
    patches = image.unfold(1, 8, stride).unfold(2, 8, stride).movedim(0, 2).flatten(2).flatten(0, 1)
    return patches @ weights["patch_embed.proj.weight"].flatten(1).T + weights["patch_embed.proj.bias"]


def keys_by_hand(weights: dict[str, Tensor], tokens: Tensor, blocks: int, heads: int) -> Tensor:
    """Keys of the last of `blocks` blocks, tokens x heads x dimension, from the definition of a transformer."""

    def normed(x: Tensor, name: str) -> Tensor:
        x = (x - x.mean(-1, keepdim=True)) / (x.var(-1, keepdim=True, correction=0) + 1e-6).sqrt()
        return x * weights[f"{name}.weight"] + weights[f"{name}.bias"]

    def linear(x: Tensor, name: str) -> Tensor:
        return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    for block in range(blocks):
        qkv = linear(normed(tokens, f"blocks.{block}.norm1"), f"blocks.{block}.attn.qkv")
        q, k, v = (part.unflatten(1, (heads, -1)) for part in qkv.split(qkv.shape[1] // 3, dim=1))
        if block == blocks - 1:
            break
        attention = (torch.einsum("ihd,jhd->hij", q, k) / math.sqrt(q.shape[2])).softmax(-1)
        tokens = tokens + linear(torch.einsum("hij,jhd->ihd", attention, v).flatten(1), f"blocks.{block}.attn.proj")
        hidden = F.gelu(linear(normed(tokens, f"blocks.{block}.norm2"), f"blocks.{block}.mlp.fc1"))
        tokens = tokens + linear(hidden, f"blocks.{block}.mlp.fc2")
    return k


def cubic_weights(trained: int, length: int) -> Tensor:
    """The matrix of bicubic resampling with a = -3/4 and the factor (length + 0.1) / trained: length x trained."""
    a, matrix = -0.75, np.zeros((length, trained))
    for i in range(length):
        x = (i + 0.5) * trained / (length + 0.1) - 0.5
        for j in range(math.floor(x) - 1, math.floor(x) + 3):
            d = abs(x - j)
            near = (a + 2) * d**3 - (a + 3) * d**2 + 1
            far = a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a
            matrix[i, min(max(j, 0), trained - 1)] += near if d <= 1 else far
    return torch.from_numpy(matrix)


def positions_by_hand(trained: Tensor, grid: tuple[int, int]) -> Tensor:
    rows, columns = (cubic_weights(SIDE, length) for length in grid)
    patches = torch.einsum("ik,jl,klc->ijc", rows, columns, trained[0, 1:].unflatten(0, (SIDE, SIDE)).double())
    return torch.cat([trained[:, :1].double(), patches.flatten(0, 1)[None]], dim=1)


def features_by_hand(weights: dict[str, Tensor], image: Tensor, layer: int, stride: int) -> Tensor:
    """Keys of patches every `stride` pixels, before they are resized: 1 x 384 x rows x columns."""
    rows, columns = ((side - 8) // stride + 1 for side in image.shape[1:])
    tokens = torch.cat([weights["cls_token"][0], patches_by_hand(weights, image, stride)])
    tokens = tokens + positions_by_hand(weights["pos_embed"], (rows, columns))[0].to(tokens.dtype)
    keys = keys_by_hand(weights, tokens, layer + 1, heads=6)[1:]  # patches x heads x 64
    return keys.permute(2, 1, 0).reshape(1, 384, rows, columns)  # channel = index within the head x heads + head


@torch.no_grad()
def test_keys_equal_those_of_the_original() -> None:
    golden = golden_rule.load("dino_vits8_keys")
    settings, expected = golden.settings, golden.arrays["features"]
    encoder = DinoEncoder(EncoderConfig(source_layer=settings["layer"]))
    encoder.vit.load_state_dict(golden_rule.state_dict(settings["state_dict"]), strict=True)
    images = golden_rule.real_input((1, 3, settings["height"], settings["width"]), 5)
    assert float(expected.std()) > 1
    torch.testing.assert_close(encoder(images), expected, rtol=0, atol=1e-3)


@pytest.mark.parametrize("grid", [(8, 16), (32, 64), (16, 32), (28, 27), (14, 56), (1, 1)])
def test_positions_are_resampled_with_the_tenth(grid: tuple[int, int]) -> None:
    trained = golden_rule.real_input((1, 1 + SIDE**2, 2), 1).double()
    here = positions(trained, grid)
    torch.testing.assert_close(here, positions_by_hand(trained, grid), rtol=0, atol=1e-9)
    to_size = F.interpolate(trained[:, 1:].unflatten(1, (SIDE, SIDE)).movedim(-1, 1), grid, mode="bicubic")
    assert float((here[:, 1:] - to_size.flatten(2).transpose(1, 2)).abs().max()) > 1e-4
    assert positions(trained, (SIDE, SIDE)) is trained


@pytest.mark.parametrize(
    ("sides", "layer"), [((16, 40), 0), ((40, 16), 5), pytest.param((256, 512), 11, marks=pytest.mark.slow)]
)
@torch.no_grad()
def test_keys_follow_from_the_definition(sides: tuple[int, int], layer: int) -> None:
    weights = {name: tensor.double() for name, tensor in dinos.weights().items()}
    images = golden_rule.real_input((1, 3, *sides), 5).double()
    expected = features_by_hand(weights, images[0], layer, stride=8)
    encoder = dinos.encoder(EncoderConfig(source_layer=layer)).double()
    torch.testing.assert_close(encoder(images), expected, rtol=0, atol=1e-8)
    if sides == (256, 512):
        torch.testing.assert_close(encoder.float()(images.float()), expected.float(), rtol=0, atol=1e-3)


@pytest.mark.parametrize(
    ("model", "stride", "channels"),
    [("dino_vits16", 16, 384), ("dino_vits16", 8, 384), ("dino_vits8", 4, 384), ("dino_vitb16", 16, 768)],
)
def test_features_have_the_requested_stride(model: str, stride: int, channels: int) -> None:
    config = EncoderConfig(model=model, source_layer=0, output_stride=stride)
    with torch.device("meta"):
        features = DinoEncoder(config)(torch.zeros(2, 3, 32, 48))
    assert features.shape == (2, channels, 32 // stride, 48 // stride)


@torch.no_grad()
def test_overlapping_patches_are_resized_to_the_whole_image() -> None:
    images = dinos.images(1)
    features = dinos.encoder(EncoderConfig(source_layer=0, output_stride=4))(images)
    keys = features_by_hand(dinos.weights(), images[0], 0, stride=4)
    assert keys.shape == (1, 384, 3, 5)
    torch.testing.assert_close(features, F.interpolate(keys, (4, 6), mode="bilinear"), rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("shape", "message"),
    [((1, 3, 20, 16), "20 x 16.*multiples of 8"), ((1, 3, 16, 4), "16 x 4"), ((1, 1, 16, 16), "3 channels, but got 1")],
)
def test_images_that_do_not_fit_are_refused(shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(UserError, match=message):
        dinos.frozen()(torch.zeros(shape))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"model": "dino_vits32"}, "'dino_vits32'; choose from: dino_vits8, dino_vitb8"),
        ({"source_layer": 12}, "less than 12"),
        ({"output_stride": 3}, "must divide the patch size of dino_vits8, 8 pixels"),
        ({"output_stride": 16}, "must divide the patch size"),
        ({"output_stride": 0}, "greater than or equal to 1"),
    ],
)
def test_impossible_configs_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        EncoderConfig(**values)


def test_only_weights_that_affect_the_features_can_be_trained() -> None:
    encoder = dinos.encoder(EncoderConfig(source_layer=1, train=True))
    encoder(dinos.images(2)).square().sum().backward()
    for name, parameter in encoder.named_parameters():
        assert parameter.requires_grad == (parameter.grad is not None), name
    assert encoder.vit.patch_embed.proj.weight.grad.abs().max() > 0
    assert not encoder.vit.blocks[2].attn.qkv.weight.requires_grad


def test_frozen_encoder_is_shared_by_copies_and_follows_its_images() -> None:
    frozen = dinos.frozen()
    assert copy.deepcopy(frozen) is frozen
    images = dinos.images(2)
    single = frozen(images)
    double = frozen(images.double())
    assert (double.dtype, double.requires_grad) == (torch.float64, False)
    torch.testing.assert_close(double.float(), single, rtol=0, atol=1e-3)
    assert torch.equal(frozen(images), single)
