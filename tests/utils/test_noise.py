"""Keyed noise: a function of key and position that statistical tests cannot tell from independent draws.

The keys are fixed, so every test gives the same result on every run. A p-value above 1e-4 and a z-score below 4.5 pass:
with the few hundred that are computed, good noise stays within these bounds and bad noise is far outside.
"""

import math
from collections.abc import Callable

import pytest
import torch
from scipy import stats
from torch import Tensor

from utils import noise
from utils.noise import correlated_exponential, derive_key, exponential, image_keys, seed_from, uniform

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


def p_uniform(u: Tensor) -> float:
    return float(stats.kstest(u.double().flatten().numpy(), "uniform").pvalue)


def p_even(cells: Tensor, number: int) -> float:
    """Chi-square test that all cells are equally frequent."""
    return float(stats.chisquare(torch.bincount(cells.flatten(), minlength=number)).pvalue)


def check_independent(a: Tensor, b: Tensor) -> None:
    """Check that two series of uniforms are uncorrelated, and that their pairs fill the unit square evenly."""
    assert abs(float(((a.double() - 0.5) * (b.double() - 0.5)).mean())) * 12 * math.sqrt(a.numel()) < FINE_Z
    assert p_even((a * 16).long() * 16 + (b * 16).long(), 256) > FINE


def check_half(bits: Tensor, z: float = FINE_Z) -> None:
    """Check that every bit (the axes after the first) is set half of the time."""
    assert float((bits.double().mean(0) - 0.5).abs().max()) * 2 * math.sqrt(len(bits)) < z


def top_bits(u: Tensor) -> Tensor:
    """The 16 leading bits of uniforms, as the last axis."""
    return ((u * 2**16).long()[..., None] >> torch.arange(16)) & 1


@per_keys
def test_uniforms_are_uniform_in_every_bit(keys: Tensor) -> None:
    for u in uniform(keys, (N,)):
        assert p_uniform(u) > FINE
        assert p_even((u * 1000).long(), 1000) > FINE
        assert p_even((u * 7).long(), 7) > FINE
        check_half(top_bits(u))


@per_keys
def test_a_few_uniforms_of_each_of_many_keys_are_uniform(keys: Tensor) -> None:
    many = (keys[:, None] + torch.arange(2000) * 3).flatten()
    for u in uniform(many, (3,)).T:
        assert p_uniform(u.unique()) > FINE
    assert p_uniform(uniform(derive_key(many), (3,))) > FINE


@per_keys
def test_neighbours_are_independent(keys: Tensor) -> None:
    u = uniform(keys, (256, 256))
    for rows, columns in ((0, 1), (1, 0), (1, 1), (0, 2), (16, 0), (128, 0)):
        here, there = u[:, : 256 - rows, : 256 - columns], u[:, rows:, columns:]
        for a, b in zip(here, there, strict=True):
            check_independent(a, b)


@pytest.mark.parametrize(("one", "other"), PAIRS.values(), ids=PAIRS.keys())
def test_related_keys_give_unrelated_noise(one: Tensor, other: Tensor) -> None:
    a, b = uniform(one, (N,))[0], uniform(other, (N,))[0]
    check_independent(a, b)
    assert float((a == b).double().mean()) < 1e-3
    check_half(top_bits(a) != top_bits(b))


def test_streams_are_not_shifted_copies() -> None:
    """The correlations of streams at every lag, by Fourier transform."""
    keys = torch.cat([derive_key(0, "image", torch.arange(8)), torch.tensor([1000, 1001])])
    spectrum = torch.fft.rfft(uniform(keys, (N,)).double() - 0.5)
    for i in range(len(keys)):
        for j in range(i, len(keys)):
            z = torch.fft.irfft(spectrum[i] * spectrum[j].conj(), n=N) * 12 / math.sqrt(N)
            # the largest of 65,536 z-scores is about 4.5, that of a shifted copy 256
            assert float(z[int(i == j) :].abs().max()) < 6.5


@pytest.mark.parametrize("draw", [uniform, exponential])
def test_noise_depends_on_key_and_position_alone(draw: Callable[..., Tensor]) -> None:
    keys = derive_key(torch.arange(7))
    torch.manual_seed(1)
    state = torch.get_rng_state()
    flat = draw(keys, (24,))
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    assert flat.dtype == torch.float32
    assert torch.equal(draw(keys, (2, 3, 4)), flat.view(7, 2, 3, 4))
    assert torch.equal(draw(keys, (10,)), flat[:, :10])
    assert torch.equal(torch.cat([draw(key[None], (24,)) for key in keys]), flat)


def test_noise_has_known_answers() -> None:
    """The numbers must never change; they are computed with Python's integers from the published constants."""

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
def test_neither_zero_nor_one_occurs(bits: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(noise, "_random_bits", lambda key, shape: torch.full((1, *shape), bits, dtype=torch.int32))
    key = torch.zeros(1, dtype=torch.int64)
    u = float(uniform(key, (1,)))
    assert 0 < u < 1
    assert u == pytest.approx(((bits % 2**32 >> 1) + 0.5) / 2**31, rel=2**-23)
    assert 0 < float(exponential(key, (1,))) < 17


def test_rare_events_keep_their_frequency() -> None:
    """Events of probability 1e-6 are as frequent as they should be, within four standard deviations."""
    u = uniform(derive_key("small", torch.arange(8)), (1 << 20,))
    assert 0 < float(u.min()) < 1e-6
    for probability in (1e-6, 1e-5, 1e-4, 1e-3):
        expected = probability * u.numel()
        assert abs(int((u < probability).sum()) - expected) < 4 * math.sqrt(expected) + 1
        assert abs(int((u > 1 - probability).sum()) - expected) < 4 * math.sqrt(expected) + 1


def test_small_exponentials_are_as_precise_as_large_ones() -> None:
    """The smallest decide between rare classes: below 1e-3 they are uniform to first order, without steps."""
    key = derive_key("race", torch.arange(4))
    x, u = exponential(key, (1 << 20,)).double(), uniform(key, (1 << 20,)).double()
    small = x[x < 1e-3]
    assert abs(len(small) - 1e-3 * x.numel()) < 4 * math.sqrt(1e-3 * x.numel())
    assert p_uniform(-torch.expm1(-small) / -math.expm1(-1e-3)) > FINE
    assert len(small.unique()) > 0.99 * len(small)
    torch.testing.assert_close(x, -torch.log1p(-u), rtol=1e-6, atol=0)


@pytest.mark.parametrize("length", [1e-40, 0.2, 4.0, 1e6])
def test_correlated_exponentials_are_exponentials_at_every_pixel(length: float) -> None:
    x = correlated_exponential(derive_key(torch.arange(4000)), (2, 9, 20), length).double()
    for row, column in ((0, 0), (4, 10), (8, 19)):
        assert p_uniform(-torch.expm1(-x[:, 0, row, column])) > FINE
    classes = -torch.expm1(-x[:, :, 4, 10])
    check_independent(classes[:, 0], classes[:, 1])


def test_correlation_of_exponentials_falls_with_the_distance_of_their_pixels() -> None:
    length, keys = 4.0, derive_key("correlated", torch.arange(20_000))
    x = correlated_exponential(keys, (1, 25, 32), length)[:, 0].double()
    normal = math.sqrt(2) * torch.erfinv(1 - 2 * torch.exp(-x))
    middle = [((12, 15), other) for other in ((12, 15), (14, 17), (12, 19), (20, 15))]
    border = [((0, 0), (0, 3)), ((0, 0), (2, 2)), ((24, 31), (21, 31))]
    for one, other in middle + border:
        correlation = float(torch.corrcoef(torch.stack([normal[:, *one], normal[:, *other]]))[0, 1])
        assert correlation == pytest.approx(math.exp(-((math.dist(one, other) / length) ** 2)), abs=0.02)
    shared = correlated_exponential(keys[:100], (1, 25, 32), 1e8).flatten(1)
    torch.testing.assert_close(shared, shared[:, :1].expand_as(shared), rtol=1e-4, atol=1e-6)


def test_noise_is_the_same_within_autocast() -> None:
    keys, shape = derive_key(torch.arange(2)), (2, 16, 16)
    expected = correlated_exponential(keys, shape, 4.0), exponential(keys, shape)
    with torch.autocast("cpu", torch.bfloat16):
        actual = correlated_exponential(keys, shape, 4.0), exponential(keys, shape)
    torch.testing.assert_close(actual, expected, rtol=0, atol=0)


@pytest.mark.parametrize("length", [2.0, 3.0, 7.3, 24.0, 100.0, 1e6])
def test_the_filter_of_correlated_numbers_gives_every_pair_of_pixels_its_correlation(length: float) -> None:
    rows = noise._smoothing(128, length, torch.device("cpu")).double()
    distance = torch.arange(128)[:, None] - torch.arange(128).double()
    torch.testing.assert_close(rows @ rows.T, torch.exp(-((distance / length) ** 2)), rtol=0, atol=2e-4)


def test_keys_from_integers_and_from_tensors_agree_and_broadcast() -> None:
    values = [0, 1, -1, 255, -(2**63), 2**63 - 1, 2**32]
    together = derive_key(7, torch.tensor(values), "step", 3)
    assert together.dtype == torch.int64
    for value, key in zip(values, together, strict=True):
        assert torch.equal(derive_key(7, value, "step", 3), key)
        assert torch.equal(derive_key(torch.tensor(7), torch.tensor(value), "step", torch.tensor(3)), key)
    assert torch.equal(derive_key(2**64 - 1), derive_key(-1))
    assert torch.equal(derive_key(torch.tensor([3], dtype=torch.uint8)), derive_key(torch.tensor([3])))
    keys = derive_key(1, torch.arange(3)[:, None], torch.arange(4))
    assert keys.shape == (3, 4)
    assert int(keys[2, 1]) == int(derive_key(1, 2, 1))


def test_keys_depend_on_order_number_and_purpose_of_their_parts() -> None:
    parts: list[tuple[int | str, ...]] = [(), (0,), (0, 0), (1,), (1, 2), (2, 1), (1, 2, 0), ("a",), ("b",), ("a", 1)]
    parts += [(1, "a"), ("ab",), ("a", "b"), ("",), ("1",)]
    assert len({int(derive_key(*part)) for part in parts}) == len(parts)


def test_keys_of_a_large_grid_do_not_collide() -> None:
    keys = derive_key(torch.arange(-500, 500)[:, None], torch.arange(-500, 500))
    assert len(keys.unique()) == keys.numel()


def test_every_bit_of_a_part_changes_half_of_the_key() -> None:
    values, bit = torch.arange(4096) * 7919, torch.arange(64)
    flipped = derive_key(values[:, None] ^ (torch.ones(64, dtype=torch.int64) << bit))
    check_half(((derive_key(values)[:, None] ^ flipped)[..., None] >> bit) & 1, z=5)


def test_seeds_are_keys_without_their_sign() -> None:
    seeds = [seed_from("epoch", i) for i in range(200)]
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert len(set(seeds)) == 200
    assert seeds[3] == int(derive_key("epoch", 3)) % 2**63


IMAGE = torch.rand(3, 9, 11, generator=torch.Generator().manual_seed(0))


def test_image_keys_do_not_depend_on_batch_layout_and_dtype() -> None:
    images = IMAGE + torch.arange(7)[:, None, None, None]
    keys = image_keys(images)
    assert keys.dtype == torch.int64
    assert torch.equal(keys, torch.cat([image_keys(image[None]) for image in images]))
    assert torch.equal(keys, image_keys(images.transpose(1, 2).contiguous().transpose(1, 2)))
    assert torch.equal(keys, image_keys(images.double()))
    assert torch.equal(image_keys(images * 0), image_keys(images * -0.0))
    assert len(keys.unique()) == 7


def test_image_keys_depend_on_the_last_bit_of_every_pixel() -> None:
    changed = IMAGE.flatten().expand(IMAGE.numel(), -1).clone()
    changed.diagonal().copy_(torch.nextafter(IMAGE.flatten(), torch.tensor(2.0)))
    keys = image_keys(torch.cat([IMAGE[None], changed.view(-1, *IMAGE.shape)]))
    assert len(keys.unique()) == IMAGE.numel() + 1


def test_image_keys_depend_on_the_positions_of_pixels_and_on_the_shape() -> None:
    swaps = [IMAGE]
    for pair in torch.combinations(torch.arange(0, IMAGE.numel(), 7)):
        swaps.append(IMAGE.clone())
        swaps[-1].view(-1)[pair] = IMAGE.view(-1)[pair.flip(0)]
    assert len(image_keys(torch.stack(swaps)).unique()) == len(swaps)
    image = IMAGE[None, ..., :9]
    views = [image, image.flip(-1), image.flip(-2), image.rot90(1, (-2, -1)), image.flip(1), image * 2, image * 0]
    assert len({int(image_keys(view)) for view in views}) == len(views)
    assert len({int(image_keys(torch.zeros(1, 1, side, side))) for side in range(1, 20)}) == 19


def test_image_keys_are_spread_evenly() -> None:
    """Images that differ in one pixel have keys of which every bit changes half of the time."""
    images = torch.zeros(4096, 1, 4, 4)
    images[:, 0, 2, 1] = torch.arange(4096)
    keys = image_keys(images)
    check_half((keys[:, None] >> torch.arange(64)) & 1)
    assert p_uniform(uniform(keys, (1,))) > FINE
