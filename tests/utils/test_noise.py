"""Keyed noise: a function of key and position that statistics cannot tell from independent draws.

The keys are fixed, so every test gives the same result on every run. A p-value counts as fine above 1e-4 and a
z-score below 4.5: with the few hundred that are looked at, good noise stays inside and poor noise falls far outside.
"""

import math

import pytest
import torch
from scipy import stats
from torch import Tensor

from utils import noise
from utils.noise import derive_key, exponential, uniform

FINE = 1e-4
FINE_Z = 4.5
N = 1 << 16

KEYS = {
    "derived": derive_key(0, torch.arange(6)),
    "counting": torch.arange(6),
    "high": torch.arange(6) << 32,
    "extreme": torch.tensor([0, -1, 2**63 - 1, -(2**63), 2**31, 2**32]),
}
PAIRS = {
    "consecutive keys": (torch.tensor([1000]), torch.tensor([1001])),
    "high halves by one": (torch.tensor([5 << 32]), torch.tensor([6 << 32])),
    "consecutive steps": (derive_key(11, "x_T", 249)[None], derive_key(11, "x_T", 248)[None]),
    "consecutive seeds": (derive_key(0, 5, 1)[None], derive_key(1, 5, 1)[None]),
    "consecutive samples": (derive_key(0, 5, 1)[None], derive_key(0, 5, 2)[None]),
    "swapped parts": (derive_key(1, 2)[None], derive_key(2, 1)[None]),
    "purposes": (derive_key(3, "class")[None], derive_key(3, "keep")[None]),
} | {
    f"bit {bit}": (torch.tensor([12345]), torch.tensor([12345]) ^ (1 << bit)) for bit in (0, 1, 15, 16, 31, 32, 48, 62)
}

per_keys = pytest.mark.parametrize("keys", KEYS.values(), ids=KEYS.keys())
per_pair = pytest.mark.parametrize(("one", "other"), PAIRS.values(), ids=PAIRS.keys())


def z_of_correlation(a: Tensor, b: Tensor) -> float:
    """The correlation of two series of uniforms, in standard errors."""
    return float(((a.double() - 0.5) * (b.double() - 0.5)).mean()) * 12 * math.sqrt(a.numel())


def p_of_pairs(a: Tensor, b: Tensor, bins: int = 16) -> float:
    """Chi-square test that pairs of uniforms fill the unit square evenly."""
    cell = (a * bins).long() * bins + (b * bins).long()
    return float(stats.chisquare(torch.bincount(cell.flatten(), minlength=bins * bins)).pvalue)


def top_bits(u: Tensor) -> Tensor:
    """The 16 leading bits of uniforms, as the last axis."""
    return ((u * 2**16).long()[..., None] >> torch.arange(16)) & 1


@per_keys
def test_uniforms_are_uniform(keys: Tensor) -> None:
    for u in uniform(keys, (N,)):
        assert stats.kstest(u.double().numpy(), "uniform").pvalue > FINE
        assert stats.chisquare(torch.bincount((u * 1000).long(), minlength=1000)).pvalue > FINE
        assert stats.chisquare(torch.bincount((u * 7).long(), minlength=7)).pvalue > FINE


@per_keys
def test_a_few_uniforms_of_each_of_many_keys_are_uniform(keys: Tensor) -> None:
    """Across keys rather than positions."""
    many = (keys[:, None] + torch.arange(2000) * 3).flatten()
    u = uniform(many, (3,))
    for position in range(3):
        assert stats.kstest(u[:, position].double().unique().numpy(), "uniform").pvalue > FINE
    derived = uniform(derive_key(many), (3,))
    assert stats.kstest(derived.double().flatten().numpy(), "uniform").pvalue > FINE


@per_keys
def test_every_bit_is_balanced(keys: Tensor) -> None:
    frequency = top_bits(uniform(keys, (N,))).double().mean(1)
    assert float((frequency - 0.5).abs().max()) * 2 * math.sqrt(N) < FINE_Z


@per_keys
def test_neighbours_are_independent(keys: Tensor) -> None:
    u = uniform(keys, (256, 256))
    shifts = {"right": (0, 1), "down": (1, 0), "diagonal": (1, 1), "two": (0, 2), "far": (16, 0), "half": (128, 0)}
    for rows, columns in shifts.values():
        here, there = u[:, : 256 - rows, : 256 - columns], u[:, rows:, columns:]
        for a, b in zip(here, there, strict=True):
            assert abs(z_of_correlation(a, b)) < FINE_Z
            assert p_of_pairs(a, b) > FINE


@per_pair
def test_related_keys_give_unrelated_noise(one: Tensor, other: Tensor) -> None:
    a, b = uniform(one, (N,))[0], uniform(other, (N,))[0]
    assert abs(z_of_correlation(a, b)) < FINE_Z
    assert p_of_pairs(a, b) > FINE
    assert float((a == b).double().mean()) < 1e-3
    differ = (top_bits(a) != top_bits(b)).double().mean(0)
    assert float((differ - 0.5).abs().max()) * 2 * math.sqrt(N) < FINE_Z


def test_streams_of_derived_keys_are_no_shifted_copies() -> None:
    """The correlation at every lag, by Fourier transform, between the streams of consecutive samples."""
    u = uniform(derive_key(0, "image", torch.arange(8)), (N,)).double() - 0.5
    spectrum = torch.fft.rfft(u)
    for i in range(8):
        for j in range(i + 1, 8):
            z = torch.fft.irfft(spectrum[i] * spectrum[j].conj(), n=N) * 12 / math.sqrt(N)
            # the largest of 65 536 z-scores is about 4.5; a shifted copy has 256
            assert float(z.abs().max()) < 6.5
    own = torch.fft.irfft(spectrum.abs() ** 2, n=N)[:, 1:] * 12 / math.sqrt(N)
    assert float(own.abs().max()) < 6.5


def test_positions_are_hashed_whatever_the_shape() -> None:
    keys = derive_key(torch.arange(3))
    flat = uniform(keys, (24,))
    assert flat.dtype == torch.float32
    assert torch.equal(uniform(keys, (2, 3, 4)), flat.view(3, 2, 3, 4))
    assert torch.equal(uniform(keys, (10,)), flat[:, :10])


def test_noise_does_not_depend_on_the_batch() -> None:
    keys = derive_key(torch.arange(7))
    alone = torch.cat([uniform(key[None], (5, 6)) for key in keys])
    assert torch.equal(uniform(keys, (5, 6)), alone)
    assert torch.equal(exponential(keys, (5, 6)), torch.cat([exponential(key[None], (5, 6)) for key in keys]))


def test_noise_draws_from_no_global_stream() -> None:
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = uniform(derive_key(torch.arange(2)), (5,))
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    assert torch.equal(uniform(derive_key(torch.arange(2)), (5,)), first)


def test_noise_is_the_same_for_ever() -> None:
    """Known answers, worked out with Python's integers from the published constants."""

    def mix32(x: int) -> int:
        for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B), (16, 1)):
            x = ((x ^ (x >> shift)) * factor) % 2**32
        return x

    def mix64(x: int) -> int:
        x = (x + 0x9E3779B97F4A7C15) % 2**64
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB), (31, 1)):
            x = ((x ^ (x >> shift)) * factor) % 2**64
        return x

    key = mix64(0x0123456789ABCDEF)
    low, high = key % 2**32, key // 2**32
    expected = [mix32(mix32((i + low) % 2**32) ^ high) for i in range(100)]
    u = uniform(torch.tensor([0x0123456789ABCDEF]), (100,))[0]
    torch.testing.assert_close(u.double() * 2**32, torch.tensor(expected).double(), rtol=2**-23, atol=1.0)


@pytest.mark.parametrize("bits", [0, 1, -1, -2, 2**31 - 1, -(2**31)])
def test_neither_zero_nor_one_can_occur(bits: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the ends of what 32 bits can be, signed or not."""
    monkeypatch.setattr(noise, "_random_bits", lambda key, shape: torch.full((1, *shape), bits, dtype=torch.int32))
    key = torch.zeros(1, dtype=torch.int64)
    u = float(uniform(key, (1,)))
    assert 0 < u < 1
    assert u == pytest.approx(((bits % 2**32 >> 1) + 0.5) / 2**31, rel=2**-23)
    assert 0 < float(exponential(key, (1,))) < 17


def test_small_uniforms_keep_their_frequency() -> None:
    """Events of probability 1e-6 happen as often as they should: counts within four standard deviations."""
    u = uniform(derive_key("small", torch.arange(8)), (1 << 20,))
    assert 0 < float(u.min()) < 1e-6
    assert float(u.max()) < 1
    for probability in (1e-6, 1e-5, 1e-4, 1e-3):
        expected = probability * u.numel()
        assert abs(int((u < probability).sum()) - expected) < 4 * math.sqrt(expected) + 1
        assert abs(int((u > 1 - probability).sum()) - expected) < 4 * math.sqrt(expected) + 1


@per_keys
def test_exponentials_are_exponential(keys: Tensor) -> None:
    for x in exponential(keys, (N,)):
        assert stats.kstest(x.double().numpy(), "expon").pvalue > FINE
        assert bool((x > 0).all())


def test_small_exponentials_are_as_precise_as_large_ones() -> None:
    """The smallest decide races between rare classes: below 1e-3 they are uniform to first order, without steps."""
    x = exponential(derive_key("race", torch.arange(4)), (1 << 20,)).double()
    small = x[x < 1e-3]
    assert abs(len(small) - 1e-3 * x.numel()) < 4 * math.sqrt(1e-3 * x.numel())
    conditional = -torch.expm1(-small) / -math.expm1(-1e-3)
    assert stats.kstest(conditional.numpy(), "uniform").pvalue > FINE
    assert len(small.unique()) > 0.99 * len(small)
    u = uniform(derive_key("race", torch.arange(4)), (1 << 20,)).double()
    torch.testing.assert_close(x, -torch.log1p(-u), rtol=1e-6, atol=0)


def test_streams_of_neighbouring_raw_keys_are_not_shifted_copies() -> None:
    u = uniform(torch.tensor([1000, 1001]), (1000,))
    assert not torch.isin(u[0], u[1]).any()
