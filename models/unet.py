"""The denoising network: the U-Net of ADM over label map and image, with an optional second condition of features."""

import dataclasses
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from models.layers import (
    NORM_GROUPS,
    AttentionBlock,
    Downsample,
    ResBlock,
    TimedSequential,
    Upsample,
    time_embedding,
    zero_init,
)
from utils.errors import UserError


@dataclasses.dataclass(frozen=True)
class FeatureCondition:
    """Where features enter: `channels` of them, concatenated to the input of `input_blocks[target_layer]`."""

    channels: int
    output_stride: int
    target_layer: int


class Joint(NamedTuple):
    """What comes into an input block: its downsampling factor, and channels without those of features."""

    factor: int
    channels: int


@dataclasses.dataclass(frozen=True)
class UNetConfig:
    """All that is needed to build a U-Net. The defaults are the LIDC network of the paper, 9.06 M parameters.

    Attributes:
        num_classes: C; the network reads one-hot label maps and returns C logits per pixel.
        image_channels: channels of the image.
        base_channels: what `channel_mult` multiplies; the time embedding has 4 times as many channels.
        channel_mult: channels of each level / base_channels; each level but the last halves the sides.
        attention_resolutions: downsampling factors at which residual blocks are followed by attention.
        num_res_blocks: residual blocks a level on the way down, and one more on the way up.
        num_heads: heads of the attention where `num_head_channels` is -1.
        num_head_channels: channels of each head, or -1.
        dropout: probability with which activations are dropped inside residual blocks in training.
        feature: the second condition, if there is one.
    """

    num_classes: int
    image_channels: int = 1
    base_channels: int = 32
    channel_mult: tuple[int, ...] = (1, 2, 2, 4, 5)
    attention_resolutions: tuple[int, ...] = (8, 16, 32)
    num_res_blocks: int = 2
    num_heads: int = 1
    num_head_channels: int = 32
    dropout: float = 0.0
    feature: FeatureCondition | None = None

    def __post_init__(self) -> None:
        if not self.channel_mult:
            raise UserError("channel_mult is empty; a network needs at least one level")
        for mult in self.channel_mult:
            channels = self.base_channels * mult
            if channels % NORM_GROUPS:
                raise UserError(f"a level of {channels} channels: group normalisation needs a multiple of 32")
            if self.num_head_channels == -1 and channels % self.num_heads:
                raise UserError(f"a level of {channels} channels cannot be cut into {self.num_heads} heads")
            if self.num_head_channels != -1 and (self.num_head_channels < 1 or channels % self.num_head_channels):
                raise UserError(f"a level of {channels} channels cannot be cut into heads of {self.num_head_channels}")
        if self.feature is not None:
            self._check_feature(self.feature)

    def _check_feature(self, feature: FeatureCondition) -> None:
        joints = {index: joint for index, joint in self.joints().items() if joint.factor == feature.output_stride}
        if feature.target_layer not in joints:
            choice = f"take {' or '.join(map(str, joints))}" if joints else f"the network goes down to {self.stride}"
            raise UserError(
                f"features of output_stride {feature.output_stride} cannot join at target_layer "
                f"{feature.target_layer}: no residual block at that stride; {choice}"
            )
        channels = joints[feature.target_layer].channels + feature.channels
        if feature.channels < 1 or channels % NORM_GROUPS:
            raise UserError(
                f"{feature.channels} channels of features joined to {channels - feature.channels} at target_layer "
                f"{feature.target_layer}: group normalisation needs a multiple of 32"
            )

    def joints(self) -> dict[int, Joint]:
        """The input blocks that begin with a residual block, by their index: features can join there."""
        joints, index, channels = {}, 1, self.base_channels * self.channel_mult[0]
        for level, mult in enumerate(self.channel_mult):
            for _ in range(self.num_res_blocks):
                joints[index] = Joint(1 << level, channels)
                index, channels = index + 1, self.base_channels * mult
            index += 1  # the block that halves the sides
        return joints

    @property
    def stride(self) -> int:
        """The factor between the image and the coarsest level; sides that it does not divide are padded inside."""
        return 1 << (len(self.channel_mult) - 1)


class UNet(nn.Module):
    """p(x_0 | x_t, image) as logits. Parameter names and shapes are those of ADM and of the official CCDM code.

    With `use_checkpoint` set, training keeps what goes into each block and computes the rest again on the way back.
    """

    def __init__(self, shape: UNetConfig) -> None:
        super().__init__()
        self.shape, self.use_checkpoint = shape, False
        first = shape.base_channels * shape.channel_mult[0]
        self.embedding_channels = 4 * shape.base_channels
        self.time_embed = nn.Sequential(
            nn.Linear(shape.base_channels, self.embedding_channels),
            nn.SiLU(),
            nn.Linear(self.embedding_channels, self.embedding_channels),
        )
        self.input_blocks = nn.ModuleList(
            [TimedSequential([nn.Conv2d(shape.num_classes + shape.image_channels, first, 3, padding=1)])]
        )
        skips = self._build_down(first)
        channels = skips[-1]
        self.middle_block = TimedSequential(
            [self._res_block(channels, channels), self._attention(channels), self._res_block(channels, channels)]
        )
        self.output_blocks = self._build_up(channels, skips)
        self.out = nn.Sequential(
            nn.GroupNorm(NORM_GROUPS, first), nn.SiLU(), zero_init(nn.Conv2d(first, shape.num_classes, 3, padding=1))
        )

    def forward(self, x_t: Tensor, t: Tensor, images: Tensor, features: Tensor | None = None) -> Tensor:
        """Logits of p(x_0 | x_t, image).

        Args:
            x_t: label maps, integer, B x H x W.
            t: times, B.
            images: B x image_channels x H x W.
            features: B x channels x H / output_stride x W / output_stride, where the network was built to take them.

        Returns:
            B x C x H x W. Sides that the network cannot halve often enough are padded by repeating the border, and the
            padding is cut off again.

        Raises:
            UserError: for features that are missing, not asked for, of another shape, or of an image that is padded.
        """
        self._check(images, features)
        embedding = self.time_embed(time_embedding(t, self.shape.base_channels).to(images.dtype))
        classes = torch.arange(self.shape.num_classes, dtype=x_t.dtype, device=x_t.device)
        one_hot = (x_t[:, None] == classes[:, None, None]).to(images.dtype)
        height, width = x_t.shape[-2:]
        stride = self.shape.stride
        h = F.pad(torch.cat([one_hot, images], dim=1), (0, -width % stride, 0, -height % stride), mode="replicate")

        skips = []
        for index, block in enumerate(self.input_blocks):
            if features is not None and self.shape.feature is not None and index == self.shape.feature.target_layer:
                h = torch.cat([h, features.to(h.dtype)], dim=1)
            h = self._through(block, h, embedding)
            skips.append(h)
        h = self._through(self.middle_block, h, embedding)
        for block in self.output_blocks:
            h = self._through(block, torch.cat([h, skips.pop()], dim=1), embedding)
        return self.out(h)[..., :height, :width]

    def _through(self, block: nn.Module, h: Tensor, embedding: Tensor) -> Tensor:
        if self.use_checkpoint and torch.is_grad_enabled():
            return checkpoint(block, h, embedding, use_reentrant=False)
        return block(h, embedding)

    def _build_down(self, channels: int) -> list[int]:
        """Append the input blocks after the first; returns the channels of every skip."""
        shape, skips, factor = self.shape, [channels], 1
        for level, mult in enumerate(shape.channel_mult):
            for _ in range(shape.num_res_blocks):
                joined = channels + self._features_joining()
                channels = mult * shape.base_channels
                self.input_blocks.append(self._level_block(joined, channels, factor))
                skips.append(channels)
            if level + 1 < len(shape.channel_mult):
                self.input_blocks.append(TimedSequential([Downsample(channels)]))
                skips.append(channels)
                factor *= 2
        return skips

    def _build_up(self, channels: int, skips: list[int]) -> nn.ModuleList:
        shape, blocks = self.shape, nn.ModuleList()
        skips, factor = list(skips), shape.stride
        for level, mult in reversed(list(enumerate(shape.channel_mult))):
            for repeat in range(shape.num_res_blocks + 1):
                block = self._level_block(channels + skips.pop(), mult * shape.base_channels, factor)
                channels = mult * shape.base_channels
                if level > 0 and repeat == shape.num_res_blocks:
                    block.append(Upsample(channels))
                    factor //= 2
                blocks.append(block)
        return blocks

    def _level_block(self, in_channels: int, out_channels: int, factor: int) -> TimedSequential:
        block = TimedSequential([self._res_block(in_channels, out_channels)])
        if factor in self.shape.attention_resolutions:
            block.append(self._attention(out_channels))
        return block

    def _res_block(self, in_channels: int, out_channels: int) -> ResBlock:
        return ResBlock(in_channels, out_channels, self.embedding_channels, self.shape.dropout)

    def _attention(self, channels: int) -> AttentionBlock:
        heads = self.shape.num_heads
        if self.shape.num_head_channels != -1:
            heads = channels // self.shape.num_head_channels
        return AttentionBlock(channels, heads)

    def _features_joining(self) -> int:
        """Channels of the features that join at the input block about to be appended."""
        feature = self.shape.feature
        return feature.channels if feature is not None and feature.target_layer == len(self.input_blocks) else 0

    def _check(self, images: Tensor, features: Tensor | None) -> None:
        feature, (height, width) = self.shape.feature, images.shape[-2:]
        if feature is None:
            if features is not None:
                raise UserError("features were given to a network without a feature condition")
            return
        if height % self.shape.stride or width % self.shape.stride:
            raise UserError(
                f"images of {height} x {width}: with features, both sides must be multiples of {self.shape.stride}"
            )
        stride = feature.output_stride
        expected = (len(images), feature.channels, height // stride, width // stride)
        if features is None or tuple(features.shape) != expected:
            found = "none" if features is None else str(tuple(features.shape))
            raise UserError(
                f"input block {feature.target_layer} takes features of shape {expected}, but was given {found}"
            )
