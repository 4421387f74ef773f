"""The U-Net: released weights compute the same, and images and features of any size are handled or refused."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from models.unet import FeatureCondition, UNet, UNetConfig
from tests import golden_rule
from utils.errors import UserError

GOLDEN = ("unet_small", "unet_lidc_9m", "unet_features")
SMALL = UNetConfig(
    num_classes=3, image_channels=2, channel_mult=(1, 1, 2), attention_resolutions=(4,), num_res_blocks=1
)
LIDC = UNetConfig(num_classes=2)
CITYSCAPES = UNetConfig(num_classes=20, image_channels=3, base_channels=64, channel_mult=(1, 1, 2, 2, 4, 4))


def config_of(settings: dict[str, Any]) -> UNetConfig:
    """The arguments of a golden network as a config."""
    values = {name: value for name, value in settings.items() if name in UNetConfig.model_fields and name != "feature"}
    if settings["feature"] is not None:
        names = FeatureCondition.model_fields
        values["feature"] = {name: value for name, value in settings["feature"].items() if name in names}
    return UNetConfig(**values)


def changed(config: UNetConfig, **values: Any) -> UNetConfig:
    """A validated copy with other values."""
    return UNetConfig(**{**dict(config), **values})


def feature(channels: int, output_stride: int, target_layer: int) -> FeatureCondition:
    return FeatureCondition(channels=channels, output_stride=output_stride, target_layer=target_layer)


def filled(config: UNetConfig) -> UNet:
    """A network whose output depends on all of its input."""
    network = UNet(config).eval()
    network.load_state_dict(golden_rule.weights_of(network))
    return network


def inputs(config: UNetConfig, height: int, width: int, batch: int = 2) -> tuple[Tensor, Tensor, Tensor]:
    """x_t, t and images."""
    labels = golden_rule.label_input((batch, height, width), config.num_classes, 1)
    images = golden_rule.real_input((batch, config.image_channels, height, width), 2)
    return labels, torch.arange(1, batch + 1) * 60, images


@pytest.mark.parametrize("name", GOLDEN)
@torch.no_grad()
def test_official_weights_load_strictly_and_give_the_official_outputs(name: str) -> None:
    golden = golden_rule.load(name)
    settings, config = golden.settings, config_of(golden.settings)
    network = filled(config)
    shapes = {key: list(tensor.shape) for key, tensor in network.state_dict().items()}
    assert list(shapes.items()) == list(settings["state_dict"].items())
    assert sum(p.numel() for p in network.parameters()) == settings["parameters"]
    batch, height, width = settings["batch"], settings["height"], settings["width"]
    labels, _, images = inputs(config, height, width, batch)
    features = None
    if config.feature is not None:
        stride = config.feature.output_stride
        features = golden_rule.real_input((batch, config.feature.channels, height // stride, width // stride), 3)
    probabilities = network(labels, torch.tensor(settings["timesteps"]), images, features).softmax(1)
    stride, expected = int(golden.arrays["stride"]), golden.arrays["probabilities"]
    assert float(expected.std()) > 0.01
    torch.testing.assert_close(probabilities[..., ::stride, ::stride], expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("config", "parameters"),
    [(LIDC, 9_056_610), (changed(LIDC, channel_mult=(1, 1, 2, 3, 4)), 5.70e6), (CITYSCAPES, 30e6)],
    ids=["LIDC", "official default", "Cityscapes"],
)
def test_networks_of_the_paper_have_their_size(config: UNetConfig, parameters: float) -> None:
    with torch.device("meta"):
        network = UNet(config)
    rel = 0 if isinstance(parameters, int) else 0.02
    assert sum(p.numel() for p in network.parameters()) == pytest.approx(parameters, rel=rel)


def test_a_new_network_predicts_uniformly_and_learns() -> None:
    """Gradients pass the layers initialised to zero after a step or two, down to the first layer."""
    torch.manual_seed(0)
    network = UNet(SMALL)
    optimiser = torch.optim.SGD(network.parameters(), lr=0.05)
    x_t, t, images = inputs(SMALL, 8, 8)
    assert not network(x_t, t, images).any()
    before = {name: p.detach().clone() for name, p in network.named_parameters()}
    losses = []
    for _ in range(4):
        optimiser.zero_grad()
        loss = F.cross_entropy(network(x_t, t, images), (x_t + 1) % 3)
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < losses[0] - 1e-3
    moved = {name.split(".")[0] for name, p in network.named_parameters() if not torch.equal(p, before[name])}
    assert moved == {"time_embed", "input_blocks", "middle_block", "output_blocks", "out"}


@pytest.mark.parametrize(("height", "width"), [(30, 21), (4, 7), (1, 1), (12, 20)])
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


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        (feature(32, 2, 3), "output_stride 2 cannot join at target_layer 3.*choose 4 or 5"),
        (feature(32, 2, 1), "output_stride 2 cannot join at target_layer 1.*choose 4 or 5"),
        (feature(32, 2, 99), "choose 4 or 5"),
        (feature(32, 4, 4), "output_stride 4 cannot join at target_layer 4.*choose 7 or 8"),
        (feature(32, 8, 7), "the coarsest stride is 4"),
        (feature(31, 2, 4), "31 feature channels joined to 32 at target_layer 4.*multiple of 32"),
        (feature(0, 2, 4), "0 feature channels"),
    ],
)
def test_features_that_cannot_join_are_refused(condition: FeatureCondition, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        changed(SMALL, num_res_blocks=2, feature=condition)


@pytest.mark.parametrize(
    ("size", "shape", "message"),
    [
        ((6, 8), (2, 32, 3, 4), "images of 6 x 8.*multiples of 4"),
        ((8, 10), (2, 32, 4, 5), "images of 8 x 10.*multiples of 4"),
        ((8, 8), None, r"expects features of shape \(2, 32, 4, 4\), but got none"),
        ((8, 8), (2, 31, 4, 4), r"input block 4 expects features of shape \(2, 32, 4, 4\)"),
        ((8, 8), (1, 32, 4, 4), r"expects features of shape \(2, 32, 4, 4\)"),
        ((8, 8), (2, 32, 4, 3), r"expects features of shape \(2, 32, 4, 4\)"),
    ],
)
def test_features_that_do_not_fit_the_images_are_refused(
    size: tuple[int, int], shape: tuple[int, ...] | None, message: str
) -> None:
    network = UNet(changed(SMALL, num_res_blocks=2, feature=feature(32, 2, 4)))
    with pytest.raises(UserError, match=message):
        network(*inputs(SMALL, *size), None if shape is None else torch.zeros(shape))
    with pytest.raises(UserError, match="without a feature condition"):
        UNet(SMALL)(*inputs(SMALL, 8, 8), torch.zeros(2, 32, 4, 4))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"base_channels": 48}, "multiple of 32"),
        ({"base_channels": 0}, "greater than or equal to 32"),
        ({"channel_mult": ()}, "at least 1 item"),
        ({"num_head_channels": 48}, "a level of 32 channels cannot be split into heads of 48"),
        ({"num_head_channels": 64, "channel_mult": (2, 3)}, "a level of 96 channels cannot be split into heads of 64"),
        ({"num_head_channels": -1, "num_heads": 3}, "a level of 32 channels cannot be split into 3 heads"),
    ],
)
def test_impossible_configs_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        UNetConfig(num_classes=2, **values)


@torch.no_grad()
def test_heads_are_given_by_number_or_by_width() -> None:
    by_width, by_number = changed(SMALL, num_head_channels=16), changed(SMALL, num_head_channels=-1, num_heads=4)
    batch = inputs(SMALL, 8, 8)
    # attention is at the last level only, which has 64 channels
    assert torch.equal(filled(by_width)(*batch), filled(by_number)(*batch))
    assert not torch.equal(filled(by_number)(*batch), filled(SMALL)(*batch))


@torch.no_grad()
def test_a_process_with_another_state_adds_an_input_channel() -> None:
    network = filled(changed(SMALL, num_states=4))
    assert network.input_blocks[0][0].weight.shape[1] == 4 + SMALL.image_channels
    x_t, t, images = inputs(SMALL, 8, 8)
    logits = network(x_t, t, images)
    assert logits.shape == (2, 3, 8, 8)
    assert torch.equal(network(x_t.to(torch.uint8), t, images), logits)
    assert float((network(torch.where(x_t == 2, 3, x_t), t, images) - logits).abs().max()) > 1e-3


@pytest.mark.parametrize("patch_size", [1, 2, 4])
@pytest.mark.parametrize("size", [(16, 16), (13, 10), (5, 21)])
@torch.no_grad()
def test_logits_have_the_size_of_the_image_for_every_patch_size(patch_size: int, size: tuple[int, int]) -> None:
    config = changed(SMALL, patch_size=patch_size)
    network = filled(config)
    assert network.stride == 4 * patch_size
    assert network(*inputs(config, *size)).shape == (2, 3, *size)


@torch.no_grad()
def test_patches_are_put_back_where_they_were_taken_from() -> None:
    config = UNetConfig(num_classes=2, channel_mult=(1,), attention_resolutions=(), num_res_blocks=1, patch_size=2)
    network = filled(config).double()
    x_t, t, images = (tensor[:1] for tensor in inputs(config, 24, 24))
    images = images.double()
    before = network(x_t, t, images)
    images[0, 0, 12, 13] += 0.01
    changes = (network(x_t, t, images) - before).abs().sum((0, 1))
    # group normalisation spreads a change over the image, but weakly: it is largest around the pixel's patch
    top, left = (int(index) for index in (changes == changes.max()).nonzero()[0])
    assert abs(top - 12) <= 8
    assert abs(left - 13) <= 8


def test_a_patch_size_divides_the_cost() -> None:
    costs = []
    for patch_size in (1, 2, 4):
        config = changed(SMALL, patch_size=patch_size, attention_resolutions=())
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            UNet(config)(*inputs(config, 32, 32))
        costs.append(counter.get_total_flops())
    assert costs[0] / costs[1] == pytest.approx(4, rel=0.2)
    assert costs[0] / costs[2] == pytest.approx(16, rel=0.4)


@torch.no_grad()
def test_features_join_at_their_stride_of_the_image_for_every_patch_size() -> None:
    for patch_size, target_layer in ((1, 5), (2, 3), (4, 1)):
        config = changed(SMALL, patch_size=patch_size, feature=feature(32, 4, target_layer))
        features = golden_rule.real_input((2, 32, 4, 4), 3)
        assert filled(config)(*inputs(config, 16, 16), features).shape == (2, 3, 16, 16)
