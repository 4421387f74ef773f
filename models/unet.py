"""The denoising network: the U-Net of ADM over label map and image, with an optional second condition of features."""

from typing import Annotated, Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from models.layers import (
    NORM_GROUPS,
    AttentionBlock,
    Downsample,
    ResBlock,
    TimedSequential,
    Upsample,
    norm_silu,
    time_embedding,
    zero_init,
)
from utils.config import Config, Positive
from utils.errors import UserError

Channels = Annotated[int, Field(ge=1, le=4096)]
Levels = Annotated[tuple[Channels, ...], Field(strict=False, max_length=10)]
MAX_WIDTH = 8192


class FeatureCondition(Config):
    """Where features join: `channels` of them are concatenated to the input of `input_blocks[target_layer]`."""

    channels: int
    output_stride: int
    target_layer: int


class Joint(NamedTuple):
    """An input block at which features can join: its downsampling factor and its input channels without features."""

    factor: int
    channels: int


class UNetConfig(Config):
    """Architecture of the U-Net. The defaults are the LIDC network of the paper with 9.06 M parameters."""

    num_classes: Channels = Field(description="C, the number of logits per pixel")
    image_channels: Channels = Field(1, description="channels of the image")
    num_states: Annotated[int, Field(ge=0, le=4096)] | None = Field(
        None, description="one-hot channels of x_t; `null`: num_classes"
    )
    base_channels: Annotated[int, Field(ge=32, le=4096, multiple_of=32)] = Field(
        32, description="channels of the first level"
    )
    channel_mult: Levels = Field((1, 2, 2, 4, 5), min_length=1, description="channels of each level / base_channels")
    attention_resolutions: Levels = Field((32, 16, 8), description="downsampling factors with attention")
    num_res_blocks: Positive = Field(2, le=32, description="residual blocks per level")
    num_heads: Positive = Field(1, description="attention heads, if num_head_channels is -1")
    num_head_channels: int = Field(32, ge=-1, description="channels per attention head, or -1")
    patch_size: Literal[1, 2, 4] = Field(
        1, description="side of the squares of pixels that become one pixel with more channels inside the network"
    )
    dropout: float = Field(0.0, ge=0, lt=1, description="dropout rate inside residual blocks")
    scale_shift_norm: bool = Field(
        False, description="the time scales and shifts normalised activations; false for official weights"
    )
    feature: FeatureCondition | None = None

    @model_validator(mode="after")
    def _check(self) -> "UNetConfig":
        for mult in self.channel_mult:
            channels = self.base_channels * mult
            if channels > MAX_WIDTH:
                raise ValueError(f"a level of {channels} channels is too wide; expected at most {MAX_WIDTH}")
            if self.num_head_channels == -1 and channels % self.num_heads:
                raise ValueError(f"a level of {channels} channels cannot be split into {self.num_heads} heads")
            if self.num_head_channels != -1 and (self.num_head_channels < 1 or channels % self.num_head_channels):
                raise ValueError(
                    f"a level of {channels} channels cannot be split into heads of {self.num_head_channels}"
                )
        if self.feature is not None:
            self._check_feature(self.feature)
        return self

    def _check_feature(self, feature: FeatureCondition) -> None:
        joints = {index: joint for index, joint in self.joints().items() if joint.factor == feature.output_stride}
        if feature.target_layer not in joints:
            choice = f"choose {' or '.join(map(str, joints))}" if joints else f"the coarsest stride is {self.stride}"
            raise ValueError(
                f"features of output_stride {feature.output_stride} cannot join at target_layer "
                f"{feature.target_layer}: it is not a residual block at that stride; {choice}"
            )
        channels = joints[feature.target_layer].channels + feature.channels
        if not 1 <= feature.channels <= MAX_WIDTH or channels % NORM_GROUPS:
            raise ValueError(
                f"{feature.channels} feature channels joined to {channels - feature.channels} at target_layer "
                f"{feature.target_layer}: group normalisation needs a multiple of {NORM_GROUPS}"
            )

    def joints(self) -> dict[int, Joint]:
        """The input blocks that begin with a residual block, by index: features can join there."""
        joints, index, channels = {}, 1, self.base_channels * self.channel_mult[0]
        for level, mult in enumerate(self.channel_mult):
            for _ in range(self.num_res_blocks):
                joints[index] = Joint(self.patch_size << level, channels)
                index, channels = index + 1, self.base_channels * mult
            index += 1  # the downsampling block
        return joints

    @property
    def stride(self) -> int:
        """Downsampling factor of the coarsest level."""
        return self.patch_size << (len(self.channel_mult) - 1)

    @property
    def state_channels(self) -> int:
        """One-hot channels of x_t."""
        return self.num_classes if self.num_states is None else self.num_states

    @property
    def input_channels(self) -> int:
        """Channels of the first convolution's input: one-hot label map and image, for every pixel of a patch."""
        return (self.state_channels + self.image_channels) * self.patch_size**2


class UNet(nn.Module):
    """p(x_0 | x_t, image) as logits. Parameter names and shapes are those of ADM and of the official CCDM code.

    With a `patch_size` above 1, label map and image enter through pixel-unshuffle and the logits leave through
    pixel-shuffle (Shi et al. 2016); everything in between costs 1 / patch_size^2. All downsampling factors, such as
    `attention_resolutions`, refer to the image.

    With `use_checkpoint` set, training stores only the input of each block and recomputes the rest in the backward
    pass.
    """

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        self.config, self.use_checkpoint = config, False
        first = config.base_channels * config.channel_mult[0]
        self.embedding_channels = 4 * config.base_channels
        self.time_embed = nn.Sequential(
            nn.Linear(config.base_channels, self.embedding_channels),
            nn.SiLU(),
            nn.Linear(self.embedding_channels, self.embedding_channels),
        )
        self.input_blocks = nn.ModuleList([TimedSequential([nn.Conv2d(config.input_channels, first, 3, padding=1)])])
        skips = self._build_down(first)
        channels = skips[-1]
        self.middle_block = TimedSequential(
            [self._res_block(channels, channels), self._attention(channels), self._res_block(channels, channels)]
        )
        self.output_blocks = self._build_up(channels, skips)
        self.out = nn.Sequential(
            *norm_silu(first),
            zero_init(nn.Conv2d(first, config.num_classes * config.patch_size**2, 3, padding=1)),
        )

    @property
    def stride(self) -> int:
        """Tiles have sides that are multiples of this; other image sizes are padded inside."""
        return self.config.stride

    @property
    def patch_size(self) -> int:
        """Side of the squares of pixels that the network computes on."""
        return self.config.patch_size

    def forward(self, x_t: Tensor, t: Tensor, images: Tensor, features: Tensor | None = None) -> Tensor:
        """Logits of p(x_0 | x_t, image).

        Args:
            x_t: label maps, integer, B x H x W.
            t: times, B.
            images: B x image_channels x H x W.
            features: B x channels x H / output_stride x W / output_stride, if the network has a feature condition.

        Returns:
            B x C x H x W. Sides that are not a multiple of the stride are padded by repeating the border, and the
            padding is cropped from the result.

        Raises:
            UserError: for images with other channels, and for features that are missing, unexpected, of another shape,
                or combined with an image that needs padding.
        """
        self._check(images, features)
        embedding = self.time_embed(time_embedding(t, self.config.base_channels).to(images.dtype))
        states = torch.arange(self.config.state_channels, dtype=x_t.dtype, device=x_t.device)
        one_hot = (x_t[:, None] == states[:, None, None]).to(images.dtype)
        height, width = x_t.shape[-2:]
        stride = self.config.stride
        h = F.pad(torch.cat([one_hot, images], dim=1), (0, -width % stride, 0, -height % stride), mode="replicate")
        h = F.pixel_unshuffle(h, self.config.patch_size)

        skips = []
        for index, block in enumerate(self.input_blocks):
            if features is not None and self.config.feature is not None and index == self.config.feature.target_layer:
                h = torch.cat([h, features.to(h.dtype)], dim=1)
            h = self._through(block, h, embedding)
            skips.append(h)
        h = self._through(self.middle_block, h, embedding)
        for block in self.output_blocks:
            h = self._through(block, torch.cat([h, skips.pop()], dim=1), embedding)
        return F.pixel_shuffle(self.out(h), self.config.patch_size)[..., :height, :width]

    def _through(self, block: nn.Module, h: Tensor, embedding: Tensor) -> Tensor:
        if self.use_checkpoint and torch.is_grad_enabled():
            return checkpoint(block, h, embedding, use_reentrant=False)
        return block(h, embedding)

    def _build_down(self, channels: int) -> list[int]:
        """Append the input blocks after the first; returns the channels of every skip."""
        config, skips = self.config, [channels]
        factor: int = config.patch_size
        for level, mult in enumerate(config.channel_mult):
            for _ in range(config.num_res_blocks):
                joined = channels + self._features_joining()
                channels = mult * config.base_channels
                self.input_blocks.append(self._level_block(joined, channels, factor))
                skips.append(channels)
            if level + 1 < len(config.channel_mult):
                self.input_blocks.append(TimedSequential([Downsample(channels)]))
                skips.append(channels)
                factor *= 2
        return skips

    def _build_up(self, channels: int, skips: list[int]) -> nn.ModuleList:
        config, blocks = self.config, nn.ModuleList()
        skips, factor = list(skips), config.stride
        for level, mult in reversed(list(enumerate(config.channel_mult))):
            for repeat in range(config.num_res_blocks + 1):
                block = self._level_block(channels + skips.pop(), mult * config.base_channels, factor)
                channels = mult * config.base_channels
                if level > 0 and repeat == config.num_res_blocks:
                    block.append(Upsample(channels))
                    factor //= 2
                blocks.append(block)
        return blocks

    def _level_block(self, in_channels: int, out_channels: int, factor: int) -> TimedSequential:
        block = TimedSequential([self._res_block(in_channels, out_channels)])
        if factor in self.config.attention_resolutions:
            block.append(self._attention(out_channels))
        return block

    def _res_block(self, in_channels: int, out_channels: int) -> ResBlock:
        return ResBlock(
            in_channels, out_channels, self.embedding_channels, self.config.dropout, self.config.scale_shift_norm
        )

    def _attention(self, channels: int) -> AttentionBlock:
        heads = self.config.num_heads
        if self.config.num_head_channels != -1:
            heads = channels // self.config.num_head_channels
        return AttentionBlock(channels, heads)

    def _features_joining(self) -> int:
        """Channels of the features that join at the input block about to be appended."""
        feature = self.config.feature
        return feature.channels if feature is not None and feature.target_layer == len(self.input_blocks) else 0

    def _check(self, images: Tensor, features: Tensor | None) -> None:
        if images.dim() != 4 or images.shape[1] != self.config.image_channels:
            raise UserError(
                f"images have shape {tuple(images.shape)}, the network expects B x {self.config.image_channels} x H x W"
            )
        feature, (height, width) = self.config.feature, images.shape[-2:]
        if feature is None:
            if features is not None:
                raise UserError("features were passed to a network without a feature condition")
            return
        if height % self.config.stride or width % self.config.stride:
            raise UserError(
                f"images of {height} x {width}: with features, both sides must be multiples of {self.config.stride}"
            )
        stride = feature.output_stride
        expected = (len(images), feature.channels, height // stride, width // stride)
        if features is None or tuple(features.shape) != expected:
            found = "none" if features is None else str(tuple(features.shape))
            raise UserError(f"input block {feature.target_layer} expects features of shape {expected}, but got {found}")


def get_network(num_classes: int, image_channels: int, **params: Any) -> UNet:
    """Create the network that the settings `network: models.unet` and `network_params` describe.

    Args:
        num_classes: C.
        image_channels: channels of the image.
        params: the other fields of `UNetConfig`.

    Raises:
        ValidationError: for parameters that `UNetConfig` refuses.
    """
    return UNet(UNetConfig(num_classes=num_classes, image_channels=image_channels, **params))
