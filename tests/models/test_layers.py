"""The building blocks of the U-Net against their definitions; the golden networks check how they are combined."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from models.layers import AttentionBlock, ResBlock, time_embedding


def randomised(layer: torch.nn.Module) -> torch.nn.Module:
    """With no parameter left at zero."""
    generator = torch.Generator().manual_seed(0)
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, std=0.2, generator=generator)
    return layer.double().eval()


def random_input(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def test_time_embedding_goes_from_period_one_turn_to_ten_thousand() -> None:
    t = torch.tensor([0, 1, 100, 250])
    embedding = time_embedding(t, 32)
    angle = t.double()[:, None] * 10_000 ** (-torch.arange(16, dtype=torch.float64) / 16)
    torch.testing.assert_close(embedding.double(), torch.cat([angle.cos(), angle.sin()], 1), rtol=0, atol=3e-5)
    assert torch.equal(time_embedding(t, 33), F.pad(embedding, (0, 1)))


@pytest.mark.parametrize("num_heads", [1, 8])
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


def test_new_blocks_are_the_identity() -> None:
    x, embedding = random_input(1, 32, 4, 5).float(), random_input(1, 16).float()
    assert torch.equal(ResBlock(32, 32, 16, 0.0)(x, embedding), x)
    assert torch.equal(AttentionBlock(32, 2)(x), x)


def test_dropout_acts_in_training_only() -> None:
    block = randomised(ResBlock(32, 32, 16, dropout=0.5))
    x, embedding = random_input(1, 32, 4, 5), random_input(1, 16)
    assert torch.equal(block(x, embedding), block(x, embedding))
    block.train()
    assert not torch.equal(block(x, embedding), block(x, embedding))
