"""The parts of the U-Net against what they are said to compute."""

import math

import pytest
import torch
import torch.nn.functional as F

from models.layers import (
    AttentionBlock,
    Downsample,
    ResBlock,
    TimedSequential,
    Upsample,
    time_embedding,
    zero_init,
)


def randomised(layer: torch.nn.Module) -> torch.nn.Module:
    """With no parameter left at zero."""
    generator = torch.Generator().manual_seed(0)
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, std=0.2, generator=generator)
    return layer.double().eval()


def random_input(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def test_time_embedding_has_known_values() -> None:
    embedding = time_embedding(torch.tensor([0, 3]), 4)
    assert embedding[0].tolist() == [1, 1, 0, 0]
    expected = [math.cos(3), math.cos(0.03), math.sin(3), math.sin(0.03)]
    assert embedding[1].tolist() == pytest.approx(expected, abs=1e-6)


def test_time_embedding_goes_from_period_one_turn_to_ten_thousand() -> None:
    t = torch.tensor([1, 100, 250])
    embedding = time_embedding(t, 32)
    assert embedding.shape == (3, 32)
    for i in range(16):
        frequency = 10_000 ** (-i / 16)
        for row, time in zip(embedding.tolist(), t.tolist(), strict=True):
            assert row[i] == pytest.approx(math.cos(time * frequency), abs=3e-5)
            assert row[16 + i] == pytest.approx(math.sin(time * frequency), abs=3e-5)


def test_time_embedding_of_odd_width_ends_with_zero() -> None:
    embedding = time_embedding(torch.tensor([5]), 7)
    assert torch.equal(embedding[:, :6], time_embedding(torch.tensor([5]), 6))
    assert embedding[0, 6] == 0


@pytest.mark.parametrize("num_heads", [1, 2, 8])
def test_attention_is_an_explicit_softmax(num_heads: int) -> None:
    """Heads first, then q, k and v, along the channels of `qkv`."""
    channels, width = 64, 64 // num_heads
    layer = randomised(AttentionBlock(channels, num_heads))
    assert isinstance(layer, AttentionBlock)
    x = random_input(2, channels, 3, 5)
    normed = F.group_norm(x, 32, layer.norm.weight, layer.norm.bias).flatten(2)
    qkv = torch.einsum("oc,bcp->bop", layer.qkv.weight[..., 0], normed) + layer.qkv.bias[:, None]
    heads = []
    for head in range(num_heads):
        q, k, v = (qkv[:, (3 * head + part) * width : (3 * head + part + 1) * width] for part in range(3))
        attention = (torch.einsum("bcp,bcr->bpr", q, k) / math.sqrt(width)).softmax(-1)
        heads.append(torch.einsum("bpr,bcr->bcp", attention, v))
    out = torch.einsum("oc,bcp->bop", layer.proj_out.weight[..., 0], torch.cat(heads, 1)) + layer.proj_out.bias[:, None]
    torch.testing.assert_close(layer(x), x + out.view_as(x), rtol=1e-10, atol=1e-10)


def test_attention_does_not_know_where_pixels_are() -> None:
    layer = randomised(AttentionBlock(32, 1))
    x, order = random_input(1, 32, 4, 6), torch.randperm(24, generator=torch.Generator().manual_seed(0))
    shuffled = layer(x.flatten(2)[..., order].view_as(x))
    torch.testing.assert_close(shuffled, layer(x).flatten(2)[..., order].view_as(x))


@pytest.mark.parametrize(("in_channels", "out_channels"), [(32, 32), (96, 32), (32, 64)])
def test_residual_block_is_two_convolutions_around_the_time(in_channels: int, out_channels: int) -> None:
    block = randomised(ResBlock(in_channels, out_channels, 16, dropout=0.5))
    weights = dict(block.named_parameters())
    x, embedding = random_input(2, in_channels, 4, 5), random_input(2, 16)

    def conv(name: str, h: torch.Tensor, padding: int) -> torch.Tensor:
        return F.conv2d(h, weights[f"{name}.weight"], weights[f"{name}.bias"], padding=padding)

    def norm(name: str, h: torch.Tensor) -> torch.Tensor:
        return F.silu(F.group_norm(h, 32, weights[f"{name}.weight"], weights[f"{name}.bias"]))

    h = conv("in_layers.2", norm("in_layers.0", x), 1)
    h = h + F.linear(F.silu(embedding), weights["emb_layers.1.weight"], weights["emb_layers.1.bias"])[..., None, None]
    h = conv("out_layers.3", norm("out_layers.0", h), 1)
    skip = x if in_channels == out_channels else conv("skip_connection", x, 0)
    torch.testing.assert_close(block(x, embedding), skip + h)


def test_fresh_blocks_are_their_skips() -> None:
    x, embedding = random_input(1, 32, 4, 5).float(), random_input(1, 16).float()
    assert torch.equal(ResBlock(32, 32, 16, 0.0)(x, embedding), x)
    assert torch.equal(AttentionBlock(32, 2)(x), x)


def test_dropout_acts_in_training_only() -> None:
    block = randomised(ResBlock(32, 32, 16, dropout=0.5))
    x, embedding = random_input(1, 32, 4, 5), random_input(1, 16)
    assert torch.equal(block(x, embedding), block(x, embedding))
    block.train()
    assert not torch.equal(block(x, embedding), block(x, embedding))


@pytest.mark.parametrize(("side", "half"), [(8, 4), (7, 4), (1, 1)])
def test_downsample_halves_the_sides(side: int, half: int) -> None:
    layer = randomised(Downsample(4))
    x = random_input(1, 4, side, side)
    y = layer(x)
    assert y.shape == (1, 4, half, half)
    assert isinstance(layer, Downsample)
    # the centre of the kernel sits on every second pixel
    full = F.conv2d(x, layer.op.weight, layer.op.bias, padding=1)
    torch.testing.assert_close(y, full[..., ::2, ::2])


def test_upsample_repeats_then_convolves() -> None:
    layer = randomised(Upsample(4))
    assert isinstance(layer, Upsample)
    x = random_input(1, 4, 3, 5)
    repeated = x.repeat_interleave(2, 2).repeat_interleave(2, 3)
    torch.testing.assert_close(layer(x), F.conv2d(repeated, layer.conv.weight, layer.conv.bias, padding=1))


def test_timed_sequential_gives_the_time_to_residual_blocks() -> None:
    block, up = randomised(ResBlock(64, 64, 16, 0.0)), randomised(Upsample(64))
    x, embedding = random_input(1, 64, 2, 2), random_input(1, 16)
    row = TimedSequential([block, up])
    torch.testing.assert_close(row(x, embedding), up(block(x, embedding)))
    assert not torch.allclose(row(x, embedding), row(x, -embedding), atol=1e-3)


def test_zero_init_zeroes_weight_and_bias() -> None:
    layer = zero_init(torch.nn.Conv2d(3, 4, 3))
    assert all(bool((parameter == 0).all()) for parameter in layer.parameters())
