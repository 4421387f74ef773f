"""The shape of a U-Net, read off its tensors."""

import dataclasses
import itertools
from collections.abc import Mapping

from torch import Tensor

from models.unet import FeatureCondition, UNetConfig
from utils.errors import UserError


def network_of(weights: Mapping[str, Tensor]) -> UNetConfig:
    """The network that has such tensors. Heads leave no trace in them: they are taken to have 32 channels.

    Raises:
        UserError: where it can be no network of ours.
    """
    try:
        num_classes, base = len(weights["out.2.weight"]), weights["time_embed.0.weight"].shape[1]
        levels = _levels(weights)
        widths = [len(weights[f"input_blocks.{level[0]}.0.in_layers.2.weight"]) for level in levels]
        image_channels = weights["input_blocks.0.0.weight"].shape[1] - num_classes
    except (KeyError, IndexError) as error:
        raise UserError(f"it holds no U-Net of this kind: {error} is missing") from error
    plain = UNetConfig(
        num_classes=num_classes,
        image_channels=image_channels,
        base_channels=base,
        channel_mult=tuple(width // base for width in widths),
        attention_resolutions=tuple(
            1 << depth for depth, level in enumerate(levels) if f"input_blocks.{level[0]}.1.qkv.weight" in weights
        ),
        num_res_blocks=len(levels[0]),
    )
    return dataclasses.replace(plain, feature=_feature(weights, plain))


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
    """What joins, told by an input block that takes more channels than the block before gives."""
    found = []
    for index, joint in plain.joints().items():
        norm = weights.get(f"input_blocks.{index}.0.in_layers.0.weight")
        if norm is not None and len(norm) > joint.channels:
            found.append(FeatureCondition(len(norm) - joint.channels, joint.factor, index))
    if len(found) > 1:
        blocks = " and ".join(str(feature.target_layer) for feature in found)
        raise UserError(f"features join at the input blocks {blocks}; this software lets them join at one")
    return found[0] if found else None
