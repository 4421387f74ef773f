"""The configuration of a U-Net, inferred from its tensors."""

import itertools
from collections.abc import Mapping

from torch import Tensor

from models.unet import FeatureCondition, UNetConfig
from utils.config import validate
from utils.errors import UserError


def infer_unet_config(weights: Mapping[str, Tensor]) -> UNetConfig:
    """The configuration of the network with these tensors; attention heads, which they do not show, get 32 channels.
    Raises UserError if they are not a U-Net of this kind."""
    try:
        num_classes, base = len(weights["out.2.weight"]), weights["time_embed.0.weight"].shape[1]
        levels = _levels(weights)
        widths = [len(weights[f"input_blocks.{level[0]}.0.in_layers.2.weight"]) for level in levels]
        image_channels = weights["input_blocks.0.0.weight"].shape[1] - num_classes
    except (KeyError, IndexError) as error:
        raise UserError(f"it contains no U-Net of this kind: {error} is missing") from error
    values = {
        "num_classes": num_classes,
        "image_channels": image_channels,
        "base_channels": base,
        "channel_mult": [width // base for width in widths],
        "attention_resolutions": [
            1 << depth for depth, level in enumerate(levels) if f"input_blocks.{level[0]}.1.qkv.weight" in weights
        ],
        "num_res_blocks": len(levels[0]),
    }
    plain = validate(UNetConfig, values, "its U-Net")
    feature = _feature(weights, plain)
    return plain if feature is None else validate(UNetConfig, {**values, "feature": feature}, "its U-Net")


def _levels(weights: Mapping[str, Tensor]) -> list[list[int]]:
    """For each level, the input blocks that begin with a residual block."""
    levels: list[list[int]] = [[]]
    for index in itertools.count(1):
        if f"input_blocks.{index}.0.in_layers.2.weight" in weights:
            levels[-1].append(index)
        elif f"input_blocks.{index}.0.op.weight" in weights:
            levels.append([])
        else:
            break
    return levels


def _feature(weights: Mapping[str, Tensor], plain: UNetConfig) -> FeatureCondition | None:
    """The feature condition, recognised by an input block with more channels than the block before it provides."""
    found = []
    for index, joint in plain.joints().items():
        norm = weights.get(f"input_blocks.{index}.0.in_layers.0.weight")
        if norm is not None and len(norm) > joint.channels:
            channels = len(norm) - joint.channels
            found.append(FeatureCondition(channels=channels, output_stride=joint.factor, target_layer=index))
    if len(found) > 1:
        blocks = " and ".join(str(feature.target_layer) for feature in found)
        raise UserError(f"features join at the input blocks {blocks}; only one is supported")
    return found[0] if found else None
