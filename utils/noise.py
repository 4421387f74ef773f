"""Keyed noise: random numbers that are a function of a key and a position (a counter-based generator).

A key is one 64-bit integer per item, made by `derive_key` from whatever identifies the draw (seed, image, sample, step
...). `uniform(key, shape)` hashes (key, position) for every position of the shape. The numbers do not depend on the
batch, the device, the number of workers or what was drawn before. The arithmetic is plain 32-bit integer tensor
operations, so it compiles and runs on any device.

The 32-bit finaliser is C. Wellons' `lowbias32` (hash-prospector, public domain); keys are absorbed with the finaliser
of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014).
"""

import hashlib
import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor
from torch.nn import functional

_TWO_POW_MINUS_31 = 2.0**-31
_LARGEST_BELOW_ONE = 1.0 - 2.0**-24


def derive_key(*parts: int | str | Tensor) -> Tensor:
    """One int64 key per item from any number of parts: integers, strings and int64 tensors, which broadcast.

    The order matters: `derive_key(1, 2)` and `derive_key(2, 1)` are unrelated. A string names the purpose of a draw, so
    that draws for different purposes are independent. Returns a tensor of the broadcast shape, a scalar for numbers.
    """
    key = torch.zeros((), dtype=torch.int64)
    for part in parts:
        key = _mix64(_mix64(key) ^ _word(part))
    return key


def seed_from(*parts: int | str) -> int:
    """A seed in 0 .. 2^63 - 1 from the same parts, for the generators of NumPy and PyTorch."""
    return int(derive_key(*parts)) & (2**63 - 1)


def image_keys(images: Tensor) -> Tensor:
    """A 64-bit digest of every image (B x channels x H x W, any dtype), as int64 of shape B, computed on its device.

    It is the sum over pixels of a hash of (value, position); integer sums do not depend on the order of summation.
    """
    values = images.detach().to(torch.float32) + 0.0  # -0.0 and 0.0 are the same image
    bits = values.contiguous().view(torch.int32).flatten(1)
    position = torch.arange(bits.shape[1], dtype=torch.int32, device=bits.device)
    low = _mix32(bits ^ _mix32(position))
    high = _mix32(low ^ _mix32(position ^ 0x5BD1E995))
    return _mix64((low.long().sum(1) << 32) ^ high.long().sum(1))


def uniform(key: Tensor, shape: Sequence[int]) -> Tensor:
    """Independent uniforms in (0, 1) for every key: int64 of shape B -> float32 of shape B x `shape`.

    The spacing near 0 is 2^-31, so that rare events keep their probability; neither 0 nor 1 occurs.
    """
    bits = _random_bits(key, shape)
    u = (bits >> 1).bitwise_and_(0x7FFFFFFF).float()
    return u.add_(0.5).mul_(_TWO_POW_MINUS_31).clamp_(max=_LARGEST_BELOW_ONE)


def exponential(key: Tensor, shape: Sequence[int]) -> Tensor:
    """Independent standard exponentials for every key: int64 of shape B -> float32 of shape B x `shape`.

    `argmax(p / exponential)` is a draw from Cat(p): the Gumbel-max trick without its logarithm.
    """
    return _exponential_of(uniform(key, shape))


def correlated_exponential(key: Tensor, shape: Sequence[int], length: float) -> Tensor:
    """Standard exponentials that are correlated between pixels: int64 of shape B -> float32 of shape B x C x H x W.

    They are functions of normal variables that a Gaussian filter smoothed (a Gaussian copula): those of two pixels at a
    distance d have a correlation of exp( -(d / `length`)^2 ).
    """
    classes, *sides = shape
    rows, columns = (_smoothing(side, length, key.device) for side in sides)
    coarse = (classes, rows.shape[1], columns.shape[1])
    radius, angle = exponential(derive_key(key, "radius"), coarse), uniform(derive_key(key, "angle"), coarse)
    normal = (2 * radius).sqrt() * (math.tau * angle).cos()
    with _no_autocast(key.device.type):  # the caller's would round the numbers to bfloat16
        smooth = rows @ (normal @ columns.T)
    below = smooth.mul_(-math.sqrt(0.5)).erfc_().mul_(0.5)  # the probability of a smaller number
    return _exponential_of(below.clamp_(max=_LARGEST_BELOW_ONE))


def _no_autocast(device_type: str) -> AbstractContextManager[object]:
    available = torch.amp.autocast_mode.is_autocast_available(device_type)
    return torch.autocast(device_type, enabled=False) if available else nullcontext()


def _exponential_of(u: Tensor) -> Tensor:
    """-log(1 - u) to full precision for small u, too, like log1p, which is slow on CPUs with AVX-512.

    Rounding of 1 - u cancels in the ratio of log(1 - u) and (1 - u) - 1; where both are 0, their ratio is 1.
    """
    rest = 1 - u
    return rest.log().div_(rest.sub_(1)).nan_to_num_(1.0).mul_(u)


def _smoothing(side: int, length: float, device: torch.device) -> Tensor:
    """A Gaussian filter along one axis, from the points of a grid to pixels: side x points, with rows of norm 1.

    The points are a standard deviation of the filter apart (`length` / 2, at least one pixel), which changes the
    correlation by less than 2e-4, and go three of them past the border, so that pixels there are like all others.
    """
    spacing = max(1.0, length / 2)
    points = spacing * torch.arange(-3, math.ceil((side - 1) / spacing) + 4, device=device)
    pixels = torch.arange(side, device=device)
    return functional.normalize(torch.exp(-2 * ((pixels[:, None] - points) / length).square()))


def _word(part: int | str | Tensor) -> int | Tensor:
    """A part as 64 bits; a number stays a number, since copying it to a device would synchronise."""
    if isinstance(part, Tensor):
        return part.long()
    number: int = _hash_of(part) if isinstance(part, str) else part
    return (number + 2**63) % 2**64 - 2**63


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]  # the compiler cannot see into hashlib
def _hash_of(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=8).digest(), "little")


def _random_bits(key: Tensor, shape: Sequence[int]) -> Tensor:
    """32 random bits per position, as int32; with two keyed rounds, no stream is a shifted copy of another."""
    key = _mix64(key)
    low, high = ((half & 0xFFFFFFFF).to(torch.int32)[:, None] for half in (key, key >> 32))
    size = 1
    for side in shape:
        size *= side
    position = torch.arange(size, dtype=torch.int32, device=key.device)
    return _mix32(_mix32(position + low) ^ high).view(-1, *shape)


def _mix32(x: Tensor) -> Tensor:
    x = (x ^ (x >> 16).bitwise_and_(0xFFFF)).mul_(0x7FEB352D)  # in place, since new memory costs more than arithmetic
    x.bitwise_xor_((x >> 15).bitwise_and_(0x1FFFF)).mul_(-0x7B935975)  # 0x846CA68B as a signed 32-bit integer
    return x.bitwise_xor_((x >> 16).bitwise_and_(0xFFFF))


def _mix64(x: Tensor) -> Tensor:
    x = x - 0x61C8864680B583EB  # + 0x9E3779B97F4A7C15 modulo 2^64
    x = (x ^ ((x >> 30) & 0x3FFFFFFFF)) * -0x40A7B892E31B1A47  # 0xBF58476D1CE4E5B9
    x = (x ^ ((x >> 27) & 0x1FFFFFFFFF)) * -0x6B2FB644ECCEEE15  # 0x94D049BB133111EB
    return x ^ ((x >> 31) & 0x1FFFFFFFF)
