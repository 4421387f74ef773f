"""The fused normalisation against PyTorch's, forward and backward."""

import pytest
import torch
import torch.nn.functional as F

from models.norm_silu import GroupNormSiLU


@pytest.mark.slow
@pytest.mark.parametrize(("channels", "dtype", "tolerance"), [(32, torch.float32, 1e-5), (96, torch.bfloat16, 2e-2)])
@pytest.mark.parametrize("modulated", [False, True])
def test_the_fused_layer_computes_the_same(
    channels: int, dtype: torch.dtype, tolerance: float, modulated: bool
) -> None:
    generator = torch.Generator().manual_seed(0)
    x = (3 + 2 * torch.randn(2, channels, 6, 10, generator=generator)).to(dtype)
    x = x.to(memory_format=torch.channels_last).requires_grad_()
    time = [torch.randn(2, channels, generator=generator, requires_grad=True) for _ in range(2 * modulated)]
    gradient = torch.randn(x.shape, generator=generator).to(dtype)
    results = []
    for fused in (False, True):
        layer = GroupNormSiLU(32, channels)
        layer.fused = fused
        torch.nn.init.normal_(layer.weight, generator=torch.Generator().manual_seed(1))
        torch.nn.init.normal_(layer.bias, generator=torch.Generator().manual_seed(2))
        y = layer(x if fused else x.float(), *time).to(dtype)
        results.append([y, *torch.autograd.grad(y, (x, layer.weight, layer.bias, *time), gradient)])
    assert results[1][0].is_contiguous(memory_format=torch.channels_last)
    for expected, found in zip(*results, strict=True):
        assert (found.float() - expected.float()).norm() <= tolerance * expected.float().norm()


def test_the_time_scales_and_shifts_what_is_normalised() -> None:
    layer, x = GroupNormSiLU(32, 64), torch.randn(2, 64, 3, 5)
    scale, shift = torch.randn(2, 2, 64)
    expected = F.silu(F.group_norm(x, 32) * (1 + scale[..., None, None]) + shift[..., None, None])
    torch.testing.assert_close(layer(x, scale, shift), expected, rtol=1e-5, atol=1e-5)
