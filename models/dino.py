"""Features of a DINO vision transformer (Caron et al. 2021): the keys of one block's attention, per patch.

Amir et al. 2021 (*Deep ViT Features as Dense Visual Descriptors*) found them to be good dense descriptors, and CCDM's
best Cityscapes model is conditioned on them.
"""

import math
from typing import Annotated, Any, NamedTuple

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from models.unet import UNet
from utils.config import Config, Positive, choice_of
from utils.errors import UserError

_BLOCKS = 12


class Architecture(NamedTuple):
    """A vision transformer: its name in timm, its channels, its patches' side, and the authors' file of weights."""

    timm_name: str
    channels: int
    patch_size: int
    official_file: str


ARCHITECTURES = {
    "dino_vits8": Architecture("vit_small_patch8_224.dino", 384, 8, "dino_deitsmall8_pretrain.pth"),
    "dino_vitb8": Architecture("vit_base_patch8_224.dino", 768, 8, "dino_vitbase8_pretrain.pth"),
    "dino_vits16": Architecture("vit_small_patch16_224.dino", 384, 16, "dino_deitsmall16_pretrain.pth"),
    "dino_vitb16": Architecture("vit_base_patch16_224.dino", 768, 16, "dino_vitbase16_pretrain.pth"),
}


class EncoderConfig(Config):
    """Which features a network is conditioned on."""

    model: choice_of(ARCHITECTURES) = Field(  # type: ignore[valid-type]
        "dino_vits8", description="transformer: small or base, patches of 8 or 16 pixels"
    )
    source_layer: Annotated[int, Field(ge=0, lt=_BLOCKS)] = Field(
        _BLOCKS - 1, description="transformer block whose attention keys are the features"
    )
    output_stride: Positive = Field(8, description="pixels per feature; below the patch size, patches overlap")
    train: bool = Field(False, description="whether the encoder is trained together with the network")

    @model_validator(mode="after")
    def _check(self) -> "EncoderConfig":
        if self.architecture.patch_size % self.output_stride:
            raise ValueError(
                f"output_stride is {self.output_stride}; it must divide the patch size of {self.model}, "
                f"{self.architecture.patch_size} pixels"
            )
        return self

    @property
    def architecture(self) -> Architecture:
        """The transformer with that name."""
        return ARCHITECTURES[self.model]


class DinoEncoder(nn.Module):
    """The transformer up to the keys of the chosen block. Parameters have the names of timm and DINO, under `vit.`."""

    vit: Any  # timm's models are not typed

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        try:
            import timm  # takes seconds, and only this encoder needs it
        except ImportError as error:
            raise UserError("features of DINO need the package timm: pip install timm") from error

        self.config = config
        self.vit = timm.create_model(config.architecture.timm_name, num_classes=0, weight_init="skip")
        for unused in (*self.vit.blocks[config.source_layer + 1 :], self.vit.norm):
            unused.requires_grad_(False)
        last = self.vit.blocks[config.source_layer]
        for unused in (last.attn.proj, last.norm2, last.mlp):
            unused.requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        """Keys of the attention of block `source_layer`, without the class token's.

        Args:
            images: ImageNet-normalised, B x 3 x H x W; H and W multiples of the patch's side.

        Returns:
            B x channels x H / output_stride x W / output_stride; channel = index within the head x heads + head, the
            order that released networks expect.

        Raises:
            UserError: for images of other sides or channels.
        """
        self._check(images)
        blocks = self.vit.blocks
        tokens, grid = self._embedded(images)
        for block in blocks[: self.config.source_layer]:
            tokens = block(tokens)
        last = blocks[self.config.source_layer]
        keys = last.attn.qkv(last.norm1(tokens)).chunk(3, dim=-1)[1][:, 1:]
        keys = keys.unflatten(-1, (last.attn.num_heads, -1)).transpose(2, 3).flatten(2)
        return self._resized(keys.transpose(1, 2).unflatten(2, grid), images)

    def _embedded(self, images: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """The class token and the patches' tokens with their positions, and the grid of patches."""
        projection = self.vit.patch_embed.proj
        patches = F.conv2d(images, projection.weight, projection.bias, stride=self.config.output_stride)
        grid = (patches.shape[2], patches.shape[3])
        tokens = torch.cat([self.vit.cls_token.expand(len(images), -1, -1), patches.flatten(2).transpose(1, 2)], dim=1)
        return tokens + positions(self.vit.pos_embed, grid), grid

    def _resized(self, features: Tensor, images: Tensor) -> Tensor:
        """One feature every `output_stride` pixels; overlapping patches leave some out at the border."""
        size = [side // self.config.output_stride for side in images.shape[-2:]]
        if list(features.shape[-2:]) == size:
            return features
        return F.interpolate(features, size, mode="bilinear", align_corners=False)

    def _check(self, images: Tensor) -> None:
        patch_size, (height, width) = self.config.architecture.patch_size, images.shape[-2:]
        if images.shape[1] != 3:
            raise UserError(f"{self.config.model} expects images of 3 channels, but got {images.shape[1]}")
        if height % patch_size or width % patch_size or not height or not width:
            raise UserError(
                f"images of {height} x {width}: {self.config.model} expects sides that are multiples of {patch_size}"
            )


def positions(trained: Tensor, grid: tuple[int, int]) -> Tensor:
    """The positions' embeddings, 1 x 1 + side^2 x channels, resampled to another grid: 1 x 1 + height width x channels.

    Bicubic with the factors (height + 0.1) / side and (width + 0.1) / side, as in DINO's code: the tenth shifts where
    the samples lie, so that resampling to a size alone gives other features.
    """
    side = math.isqrt(trained.shape[1] - 1)
    if grid == (side, side):
        return trained
    patches = trained[:, 1:].unflatten(1, (side, side)).movedim(-1, 1)
    factors = [(length + 0.1) / side for length in grid]
    patches = F.interpolate(patches, scale_factor=factors, mode="bicubic", align_corners=False)
    return torch.cat([trained[:, :1], patches.flatten(2).transpose(1, 2)], dim=1)


class FrozenEncoder:
    """An encoder whose weights never change; deliberately not an nn.Module: keeps it out of checkpoints, EMA,
    optimiser.

    Copies of a model share it, and it follows its images to their device and precision.

    Args:
        encoder: the encoder to freeze.
        digest: identifies its weights, so that a checkpoint can refuse others.
    """

    def __init__(self, encoder: DinoEncoder, digest: str | None = None) -> None:
        self.config, self.digest = encoder.config, digest
        self._encoder = encoder.eval().requires_grad_(False)

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """The features of images; see `DinoEncoder.forward`."""
        self._encoder.to(images.device, images.dtype)
        return self._encoder(images)

    def __deepcopy__(self, memo: object) -> "FrozenEncoder":
        return self


Encoder = DinoEncoder | FrozenEncoder


def check_encoder(network: nn.Module, encoder: Encoder | None) -> None:
    """Refuse a network and an encoder that do not fit together; of others than U-Nets too little is known.

    Raises:
        UserError: saying what does not fit.
    """
    if encoder is not None and hasattr(network, "encode"):
        raise UserError("the network computes features itself; it cannot have an encoder, too")
    if not isinstance(network, UNet):
        return
    feature = network.config.feature
    if (feature is None) != (encoder is None):
        raise UserError("features need both an encoder and a network with a feature condition; one of them is missing")
    if feature is None or encoder is None:
        return
    made = encoder.config.architecture.channels, encoder.config.output_stride
    if made != (feature.channels, feature.output_stride):
        raise UserError(
            f"the network expects {feature.channels} feature channels at stride {feature.output_stride}, but "
            f"{encoder.config.model} has {made[0]} at stride {made[1]}"
        )
    if network.config.image_channels != 3:
        raise UserError(
            f"{encoder.config.model} expects images of 3 channels, but the network has {network.config.image_channels}"
        )
