"""A network in two stages: an image encoder that runs once per image, a light denoiser for every sample and step."""

from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

from models.unet import Channels, UNet, UNetConfig
from utils.config import Config


class TwoStageConfig(Config):
    """Architecture of the network: both stages are U-Nets."""

    num_classes: Channels = Field(description="C, the number of logits per pixel")
    image_channels: Channels = Field(1, description="channels of the image")
    num_states: Channels | None = Field(None, description="one-hot channels of x_t; `null`: num_classes")
    feature_channels: Channels = Field(8, description="features per pixel that the encoder hands to the denoiser")
    encoder: dict[str, Any] = Field({}, description="fields of `UNetConfig`")
    denoiser: dict[str, Any] = Field({}, description="fields of `UNetConfig`")

    @property
    def encoder_config(self) -> UNetConfig:
        """A U-Net that sees neither x_t nor t, and whose outputs are features."""
        return UNetConfig(
            num_classes=self.feature_channels, image_channels=self.image_channels, num_states=0, **self.encoder
        )

    @property
    def denoiser_config(self) -> UNetConfig:
        """A U-Net that sees the features in place of the image."""
        return UNetConfig(
            num_classes=self.num_classes, image_channels=self.feature_channels, num_states=self.num_states,
            **self.denoiser,
        )  # fmt: skip


class TwoStage(nn.Module):
    """p(x_0 | x_t, image) as logits of a denoiser that sees x_t, t and the features of the image."""

    def __init__(self, config: TwoStageConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder, self.denoiser = UNet(config.encoder_config), UNet(config.denoiser_config)

    @property
    def stride(self) -> int:
        """Tiles have sides that are multiples of this."""
        return max(self.encoder.stride, self.denoiser.stride)

    @property
    def patch_size(self) -> int:
        """Side of the squares of pixels that the denoiser computes on."""
        return self.denoiser.patch_size

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Compile each stage, since they are called on their own."""
        self.encoder.compile(*args, **kwargs)
        self.denoiser.compile(*args, **kwargs)

    def encode(self, images: Tensor) -> Tensor:
        """Features of images: B x feature_channels x H x W."""
        batch, _, *sides = images.shape  # len() would fix the batch size of an exported network
        size, device = (batch, *sides), images.device
        t = torch.zeros(batch, dtype=torch.int64, device=device)
        return self.encoder(torch.zeros(size, dtype=torch.uint8, device=device), t, images)

    def forward(self, x_t: Tensor, t: Tensor, images: Tensor, features: Tensor) -> Tensor:
        """Logits of p(x_0 | x_t, image), B x C x H x W, from the features of `encode`; the images are not used again.

        Args:
            x_t: label maps, integer, B x H x W.
            t: times, B.
            images: B x image_channels x H x W.
            features: B x feature_channels x H x W.
        """
        return self.denoiser(x_t, t, features)


def get_network(num_classes: int, image_channels: int, **params: Any) -> TwoStage:
    """Create the network that the settings `network: models.two_stage` and `network_params` describe.

    Raises:
        ValidationError: for parameters that `TwoStageConfig` or `UNetConfig` refuses.
    """
    return TwoStage(TwoStageConfig(num_classes=num_classes, image_channels=image_channels, **params))
