"""Building blocks of the U-Net, with the parameter names and shapes of ADM (Dhariwal and Nichol 2021)."""

import math
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.norm_silu import GroupNormSiLU

NORM_GROUPS = 32
_LONGEST_PERIOD = 10_000

Layer = TypeVar("Layer", bound=nn.Module)


def time_embedding(t: Tensor, width: int) -> Tensor:
    """Sinusoids of the times t (shape B): cosines, then sines, B x width."""
    half = width // 2
    frequency = torch.exp(-math.log(_LONGEST_PERIOD) / half * torch.arange(half, device=t.device))
    angle = t.float()[:, None] * frequency
    return F.pad(torch.cat([angle.cos(), angle.sin()], dim=1), (0, width % 2))


class TimedSequential(nn.ModuleList):
    """A sequence of layers; residual blocks also receive the time embedding."""

    def forward(self, h: Tensor, embedding: Tensor) -> Tensor:
        for layer in self:
            h = layer(h, embedding) if isinstance(layer, ResBlock) else layer(h)
        return h


class ResBlock(nn.Module):
    """Two convolutions around the time embedding, with a skip: B x in_channels x H x W -> B x out_channels x H x W.

    The embedding is added before the second normalisation, or, with `scale_shift_norm`, scales and shifts its result,
    so that it has an effect however few channels a normalisation group has.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        embedding_channels: int,
        dropout: float,
        scale_shift_norm: bool = False,
    ) -> None:
        super().__init__()
        self.scale_shift_norm = scale_shift_norm
        self.in_layers = nn.Sequential(*norm_silu(in_channels), nn.Conv2d(in_channels, out_channels, 3, padding=1))
        self.emb_layers = nn.Sequential(
            nn.SiLU(), nn.Linear(embedding_channels, 2 * out_channels if scale_shift_norm else out_channels)
        )
        self.out_layers = nn.Sequential(
            *norm_silu(out_channels),
            nn.Dropout(dropout),
            zero_init(nn.Conv2d(out_channels, out_channels, 3, padding=1)),
        )
        self.skip_connection = nn.Identity() if in_channels == out_channels else nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        h, time = self.in_layers(x), self.emb_layers(embedding)
        if self.scale_shift_norm:
            h = self.out_layers[1:](self.out_layers[0](h, *time.chunk(2, dim=1)))
        else:
            h = self.out_layers(h + time[:, :, None, None])
        return self.skip_connection(x) + h


class AttentionBlock(nn.Module):
    """Self-attention over all pixels, with a skip. The `qkv` channels are split into heads first, then q, k and v."""

    def __init__(self, channels: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.norm = nn.GroupNorm(NORM_GROUPS, channels)
        self.qkv = nn.Conv1d(channels, 3 * channels, 1)
        self.proj_out = zero_init(nn.Conv1d(channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        pixels = self.norm(x).flatten(2).transpose(1, 2)
        qkv = F.linear(pixels, self.qkv.weight[..., 0], self.qkv.bias).unflatten(2, (self.num_heads, 3, -1))
        # non-contiguous q, k, v make the CPU SDPA fall back to the math kernel
        q, k, v = qkv.permute(3, 0, 2, 1, 4).contiguous()
        h = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        h = F.linear(h, self.proj_out.weight[..., 0], self.proj_out.bias)
        return x + h.transpose(1, 2).unflatten(2, x.shape[2:])


class Downsample(nn.Module):
    """Halve height and width by a strided convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.op = nn.Conv2d(channels, channels, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.op(x)


class Upsample(nn.Module):
    """Double height and width by nearest-neighbour upsampling and a convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2, mode="nearest"))


def norm_silu(channels: int) -> tuple[nn.Module, nn.Module]:
    """Normalisation and SiLU in one module, and one that does nothing: the names of parameters count both."""
    return GroupNormSiLU(NORM_GROUPS, channels), nn.Identity()


def zero_init(layer: Layer) -> Layer:
    """Initialise a layer to zero, so that the block around it starts as the identity."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer
