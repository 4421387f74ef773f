"""The U-Net: released weights mean the same here, and any image size and condition is taken or refused clearly."""

import dataclasses
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from models.layers import time_embedding
from models.unet import FeatureCondition, UNet, UNetConfig
from tests import golden_rule
from utils.errors import UserError

GOLDEN = ("unet_small", "unet_lidc_9m", "unet_features")
SMALL = UNetConfig(
    num_classes=3, image_channels=2, channel_mult=(1, 1, 2), attention_resolutions=(4,), num_res_blocks=1
)


def shape_of(settings: dict[str, Any]) -> UNetConfig:
    """The golden network's arguments in our words."""
    names = {field.name for field in dataclasses.fields(UNetConfig)} - {"feature"}
    known = {
        name: tuple(value) if isinstance(value, list) else value for name, value in settings.items() if name in names
    }
    feature = settings["feature"]
    if feature is not None:
        feature = FeatureCondition(feature["channels"], feature["output_stride"], feature["target_layer"])
    return UNetConfig(**known, feature=feature)


def filled(shape: UNetConfig) -> UNet:
    """A network whose output depends on all of its input."""
    network = UNet(shape).eval()
    network.load_state_dict(golden_rule.state_dict({name: p.shape for name, p in network.state_dict().items()}))
    return network


def inputs(shape: UNetConfig, height: int, width: int, batch: int = 2) -> tuple[Tensor, Tensor, Tensor]:
    """x_t, t and images."""
    labels = golden_rule.label_input((batch, height, width), shape.num_classes, 1)
    images = golden_rule.real_input((batch, shape.image_channels, height, width), 2)
    return labels, torch.arange(1, batch + 1) * 60, images


def without_padding(network: UNet, x_t: Tensor, t: Tensor, images: Tensor) -> Tensor:
    """The network's blocks in a row, for sides that can be halved."""
    embedding = network.time_embed(time_embedding(t, network.shape.base_channels))
    h = torch.cat([F.one_hot(x_t, network.shape.num_classes).movedim(-1, 1).float(), images], dim=1)
    skips = []
    for block in network.input_blocks:
        h = block(h, embedding)
        skips.append(h)
    h = network.middle_block(h, embedding)
    for block, skip in zip(network.output_blocks, reversed(skips), strict=True):
        h = block(torch.cat([h, skip], dim=1), embedding)
    return network.out(h)


@pytest.mark.parametrize("name", GOLDEN)
def test_official_weights_load_strictly_and_in_order(name: str) -> None:
    settings = golden_rule.load(name).settings
    network = UNet(shape_of(settings))
    ours = {key: list(value.shape) for key, value in network.state_dict().items()}
    assert list(ours.items()) == list(settings["state_dict"].items())
    network.load_state_dict(golden_rule.state_dict(settings["state_dict"]), strict=True)
    assert sum(p.numel() for p in network.parameters()) == settings["parameters"]


@pytest.mark.parametrize("name", GOLDEN)
@torch.no_grad()
def test_official_outputs_are_met(name: str) -> None:
    golden = golden_rule.load(name)
    settings, shape = golden.settings, shape_of(golden.settings)
    network = UNet(shape).eval()
    network.load_state_dict(golden_rule.state_dict(settings["state_dict"]), strict=True)
    batch, height, width = settings["batch"], settings["height"], settings["width"]
    labels, _, images = inputs(shape, height, width, batch)
    features = None
    if shape.feature is not None:
        stride = shape.feature.output_stride
        features = golden_rule.real_input((batch, shape.feature.channels, height // stride, width // stride), 3)
    probabilities = network(labels, torch.tensor(settings["timesteps"]), images, features).softmax(1)
    stride, expected = int(golden.arrays["stride"]), golden.arrays["probabilities"]
    assert float(expected.std()) > 0.01
    torch.testing.assert_close(probabilities[..., ::stride, ::stride], expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("shape", "parameters"),
    [
        (UNetConfig(num_classes=2), 9_056_610),
        (UNetConfig(num_classes=2, channel_mult=(1, 1, 2, 3, 4)), 5.70e6),
        (UNetConfig(num_classes=20, image_channels=3, base_channels=64, channel_mult=(1, 1, 2, 2, 4, 4)), 30e6),
    ],
    ids=["LIDC", "official default", "Cityscapes"],
)
def test_networks_of_the_paper_have_their_size(shape: UNetConfig, parameters: float) -> None:
    with torch.device("meta"):
        network = UNet(shape)
    rel = 0 if isinstance(parameters, int) else 0.02
    assert sum(p.numel() for p in network.parameters()) == pytest.approx(parameters, rel=rel)


@torch.no_grad()
def test_a_fresh_network_predicts_uniformly() -> None:
    torch.manual_seed(0)
    network = UNet(SMALL)
    logits = network(*inputs(SMALL, 8, 8))
    assert torch.equal(logits, torch.zeros(2, 3, 8, 8))
    assert torch.equal(logits.softmax(1), torch.full((2, 3, 8, 8), 1 / 3))


def test_a_fresh_network_can_learn() -> None:
    """The zeros it starts with let gradients through after a step or two, down to the first layer."""
    torch.manual_seed(0)
    network = UNet(SMALL)
    optimiser = torch.optim.SGD(network.parameters(), lr=0.05)
    x_t, t, images = inputs(SMALL, 8, 8)
    layers = {"first": network.input_blocks[0], "time": network.time_embed, "last": network.out}
    before = {name: [p.detach().clone() for p in layer.parameters()] for name, layer in layers.items()}
    losses = []
    for _ in range(4):
        optimiser.zero_grad()
        loss = F.cross_entropy(network(x_t, t, images), (x_t + 1) % 3)
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < losses[0] - 1e-3
    for name, layer in layers.items():
        assert not any(torch.equal(p, old) for p, old in zip(layer.parameters(), before[name], strict=True))


@torch.no_grad()
def test_sides_that_can_be_halved_are_not_padded() -> None:
    network = filled(SMALL)
    batch = inputs(SMALL, 12, 20)
    assert torch.equal(network(*batch), without_padding(network, *batch))


@pytest.mark.parametrize(("height", "width"), [(30, 21), (21, 30), (4, 7), (1, 1), (32, 33)])
@torch.no_grad()
def test_other_sides_are_padded_by_the_border_and_cropped(height: int, width: int) -> None:
    network = filled(SMALL)
    x_t, t, images = inputs(SMALL, height, width)
    logits = network(x_t, t, images)
    assert logits.shape == (2, 3, height, width)
    rows = torch.arange(-(-height // 4) * 4).clamp(max=height - 1)[:, None]
    columns = torch.arange(-(-width // 4) * 4).clamp(max=width - 1)
    padded = network(x_t[:, rows, columns], t, images[:, :, rows, columns])
    torch.testing.assert_close(logits, padded[..., :height, :width], rtol=0, atol=1e-6)


@torch.no_grad()
def test_output_depends_on_label_map_time_and_image() -> None:
    network = filled(SMALL)
    x_t, t, images = inputs(SMALL, 8, 8)
    logits = network(x_t, t, images)
    for changed in (((x_t + 1) % 3, t, images), (x_t, t + 50, images), (x_t, t, -images)):
        assert float((network(*changed) - logits).abs().max()) > 1e-3
    assert torch.equal(network(x_t.to(torch.uint8), t, images), logits)


@torch.no_grad()
def test_images_of_a_batch_do_not_mix() -> None:
    network = filled(SMALL).double()  # in float32, kernels that differ between batch sizes round too differently
    x_t, t, images = inputs(SMALL, 8, 8, batch=3)
    images = images.double()
    alone = torch.cat([network(x_t[i : i + 1], t[i : i + 1], images[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(network(x_t, t, images), alone, rtol=1e-10, atol=1e-10)


def with_features(target_layer: int) -> UNetConfig:
    """Features of 32 channels at the second level, whose residual blocks are input blocks 4 and 5."""
    return dataclasses.replace(SMALL, num_res_blocks=2, feature=FeatureCondition(32, 2, target_layer))


@pytest.mark.parametrize("target_layer", [4, 5])
@torch.no_grad()
def test_features_join_at_the_chosen_block(target_layer: int) -> None:
    network = filled(with_features(target_layer))
    plain = UNet(dataclasses.replace(SMALL, num_res_blocks=2)).state_dict()
    wider = [name for name, p in network.state_dict().items() if name not in plain or p.shape != plain[name].shape]
    block = f"input_blocks.{target_layer}.0"
    norm = [f"{block}.in_layers.0.weight", f"{block}.in_layers.0.bias", f"{block}.in_layers.2.weight"]
    assert [name for name in wider if "skip_connection" not in name] == norm
    batch = inputs(SMALL, 8, 8)
    features = golden_rule.real_input((2, 32, 4, 4), 3)
    changed = network(*batch, -features) - network(*batch, features)
    assert float(changed.abs().max()) > 1e-3


def test_released_networks_take_their_features_at_blocks_10_and_11() -> None:
    cityscapes = UNetConfig(20, 3, 64, (1, 1, 2, 2, 4, 4))
    assert [index for index, joint in cityscapes.joints().items() if joint.factor == 8] == [10, 11]
    for target_layer in (10, 11):
        with torch.device("meta"):
            weights = UNet(dataclasses.replace(cityscapes, feature=FeatureCondition(384, 8, target_layer))).state_dict()
        for block in (10, 11):
            extra = 384 if block == target_layer else 0
            assert len(weights[f"input_blocks.{block}.0.in_layers.0.weight"]) == 128 + extra


def test_first_level_may_be_wider_than_the_base() -> None:
    network = UNet(UNetConfig(3, 2, 32, (2, 1), (), 1))
    assert network(*inputs(network.shape, 8, 8)).shape == (2, 3, 8, 8)
    shapes = {name: tuple(p.shape) for name, p in network.state_dict().items()}
    assert shapes["time_embed.0.weight"] == (128, 32)
    assert shapes["input_blocks.0.0.weight"] == (64, 5, 3, 3)
    assert shapes["out.2.weight"] == (3, 64, 3, 3)


@pytest.mark.parametrize(
    ("feature", "message"),
    [
        (FeatureCondition(32, 2, 3), "output_stride 2 cannot join at target_layer 3.*take 4 or 5"),
        (FeatureCondition(32, 2, 1), "output_stride 2 cannot join at target_layer 1.*take 4 or 5"),
        (FeatureCondition(32, 2, 99), "take 4 or 5"),
        (FeatureCondition(32, 4, 4), "output_stride 4 cannot join at target_layer 4.*take 7 or 8"),
        (FeatureCondition(32, 8, 7), "the network goes down to 4"),
        (FeatureCondition(31, 2, 4), "31 channels of features joined to 32 at target_layer 4.*multiple of 32"),
        (FeatureCondition(0, 2, 4), "0 channels of features"),
    ],
)
def test_features_that_cannot_join_are_refused(feature: FeatureCondition, message: str) -> None:
    with pytest.raises(UserError, match=message):
        dataclasses.replace(SMALL, num_res_blocks=2, feature=feature)


def test_features_without_a_condition_are_refused() -> None:
    with pytest.raises(UserError, match="without a feature condition"):
        UNet(SMALL)(*inputs(SMALL, 8, 8), torch.zeros(2, 32, 4, 4))


@pytest.mark.parametrize(("height", "width"), [(6, 8), (8, 10)])
def test_features_of_images_that_would_be_padded_are_refused(height: int, width: int) -> None:
    features = torch.zeros(2, 32, height // 2, width // 2)
    with pytest.raises(UserError, match=f"images of {height} x {width}.*multiples of 4"):
        UNet(with_features(4))(*inputs(SMALL, height, width), features)


@pytest.mark.parametrize("shape", [None, (2, 31, 4, 4), (2, 32, 8, 8), (1, 32, 4, 4), (2, 32, 4, 3)])
def test_wrong_features_are_refused_with_the_right_shape(shape: tuple[int, ...] | None) -> None:
    network = UNet(with_features(4))
    features = None if shape is None else torch.zeros(shape)
    with pytest.raises(ValueError, match=r"input block 4 takes features of shape \(2, 32, 4, 4\)"):
        network(*inputs(SMALL, 8, 8), features)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"base_channels": 48}, "a level of 48 channels.*multiple of 32"),
        ({"base_channels": 16, "channel_mult": (2, 3)}, "a level of 48 channels.*multiple of 32"),
        ({"num_head_channels": 48}, "a level of 32 channels cannot be cut into heads of 48"),
        ({"num_head_channels": 64, "channel_mult": (2, 3)}, "a level of 96 channels cannot be cut into heads of 64"),
    ],
)
def test_impossible_shapes_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        UNetConfig(num_classes=2, **settings)


@torch.no_grad()
def test_heads_can_be_counted_or_sized() -> None:
    sized = dataclasses.replace(SMALL, num_head_channels=16)
    counted = dataclasses.replace(SMALL, num_head_channels=-1, num_heads=4)
    batch = inputs(SMALL, 8, 8)
    # attention is at the last level only, of 64 channels
    assert torch.equal(filled(sized)(*batch), filled(counted)(*batch))
    assert not torch.equal(filled(counted)(*batch), filled(SMALL)(*batch))
