"""Group normalisation followed by SiLU, in two compiled passes over memory each way, for CUDA devices."""

import functools
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class GroupNormSiLU(nn.GroupNorm):
    """silu(group normalisation of x), or silu(shift + (1 + scale) * group normalisation of x).

    Attributes:
        fused: whether to run in compiled kernels of its own; needs a CUDA device with Triton.
    """

    fused = False

    def forward(self, x: Tensor, scale: Tensor | None = None, shift: Tensor | None = None) -> Tensor:
        """x: B x C x H x W; scale and shift, if given: B x C."""
        if self.fused:
            gain, offset = self.weight.expand(len(x), -1), self.bias.expand(len(x), -1)
            if scale is not None and shift is not None:
                gain, offset = gain * (1 + scale), torch.addcmul(shift.float(), offset, 1 + scale.float())
            y: Tensor = _NormSiLU.apply(x, gain.contiguous(), offset.contiguous(), self.num_groups, self.eps)
            return y
        h = super().forward(x)
        if scale is not None and shift is not None:
            h = h * (1 + scale[:, :, None, None]) + shift[:, :, None, None]  # addcmul is slow in bfloat16 on CPUs
        return F.silu(h)


class _NormSiLU(torch.autograd.Function):
    """silu(gain * normalised x + offset), with gain and offset for every image and channel.

    PyTorch's own kernels pass over memory more often: they compute in the layout N x C x H x W, in float32 under
    autocast, and normalisation, affine map and SiLU each on their own.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, gain: Tensor, offset: Tensor, groups: int, eps: float) -> Tensor:
        """x: B x C x H x W; gain, offset: B x C."""
        y, mean, rstd = _compiled(_forward)(x.permute(0, 2, 3, 1), gain, offset, groups, eps)
        ctx.save_for_backward(x, gain, offset, mean, rstd)
        ctx.groups = groups
        return y.permute(0, 3, 1, 2)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        """The gradients of x, gain and offset."""
        x, gain, offset, mean, rstd = ctx.saved_tensors
        grad = gradients[0].permute(0, 2, 3, 1)
        grads = _compiled(_backward)(grad, x.permute(0, 2, 3, 1), gain, offset, mean, rstd, ctx.groups)
        return grads[0].permute(0, 3, 1, 2), *grads[1:], None, None


@functools.cache
def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    return torch.compile(function, dynamic=True)


def _forward(x: Tensor, gain: Tensor, offset: Tensor, groups: int, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    number, _, _, channels = x.shape
    variances, means = torch.var_mean(x.float(), (1, 2), correction=0)
    variances, means = variances.view(number, groups, -1), means.view(number, groups, -1)
    mean = means.mean(2, keepdim=True)
    variance = variances.mean(2, keepdim=True) + ((means - mean) * (means - mean)).mean(2, keepdim=True)
    shape = number, groups, channels // groups
    rstd = torch.rsqrt(variance + eps).expand(shape).reshape(number, channels)
    mean = mean.expand(shape).reshape(number, channels)
    scale = gain * rstd
    shift = offset - mean * scale
    y = x.float() * scale[:, None, None] + shift[:, None, None]
    return F.silu(y).to(x.dtype), mean, rstd


def _backward(
    grad: Tensor, x: Tensor, gain: Tensor, offset: Tensor, mean: Tensor, rstd: Tensor, groups: int
) -> tuple[Tensor, Tensor, Tensor]:
    number, height, width, channels = x.shape
    normalised = (x.float() - mean[:, None, None]) * rstd[:, None, None]
    y = normalised * gain[:, None, None] + offset[:, None, None]
    sigmoid = y.sigmoid()
    grad_y = grad.float() * sigmoid * (1 + y * (1 - sigmoid))
    grad_offset, grad_gain = grad_y.sum((1, 2)), (grad_y * normalised).sum((1, 2))

    def mean_of_group(per_channel: Tensor) -> Tensor:
        grouped = (per_channel * gain).view(number, groups, -1)
        mean = grouped.sum(2, keepdim=True) / (height * width * (channels // groups))
        return mean.expand(grouped.shape).reshape(number, 1, 1, channels)

    grad_normalised = grad_y * gain[:, None, None]
    grad_x = grad_normalised - mean_of_group(grad_offset) - normalised * mean_of_group(grad_gain)
    return (grad_x * rstd[:, None, None]).to(x.dtype), grad_gain, grad_offset
