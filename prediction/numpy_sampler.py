"""Samples of an exported model with NumPy and onnxruntime alone, the same as `CCDM.sample` draws on a CPU.

Copy this file to wherever the ONNX file goes; it imports nothing of this software:

    labels = sample("model.onnx", image, num_samples=16)    # image: H x W or channels x H x W, intensities in [0, 1]
"""

import itertools
import json
import math
from typing import Any

import numpy as np
import onnxruntime


def sample(path: str, image: Any, num_samples: int = 16, steps: int = 5, seed: int = 0, length: float = 24.0) -> Any:
    """Label maps of an image, num_samples x H x W, uint8, by the sampler `coherent` with a correlation length.

    Raises ValueError for an image of another shape than the exported one, and impossible steps.
    """
    session = onnxruntime.InferenceSession(path)
    about = json.loads(session.get_modelmeta().custom_metadata_map["ccdm"])
    abar, c = np.array(about["alpha_bar"]), about["num_classes"]
    if not 1 <= steps < len(abar):
        raise ValueError(f"steps is {steps}; expected 1 .. {len(abar) - 1}")
    mean, std = (np.array(about[name], np.float32)[:, None, None] for name in ("image_mean", "image_std"))
    x, expected = np.asarray(image, np.float32), (len(mean), *about["size"])
    if x.shape != expected and (1, *x.shape) != expected:
        raise ValueError(f"the image has shape {x.shape}; expected {expected}")
    x = (x.reshape(expected) - mean) / std
    keys = [_derive_key(seed, _image_key(x), number) for number in range(num_samples)]
    return np.stack([_one(session, x, key, time_grid(abar, steps), abar, c, length) for key in keys])


def time_grid(abar: Any, steps: int) -> list[int]:
    """The times that are visited, from T to 0."""
    root, last = np.sqrt(abar), len(abar) - 1
    grid = np.abs(root[:, None] - np.linspace(root[-1], 1, steps + 1)).argmin(0).tolist()
    grid[0], grid[-1] = last, 0
    for k in range(steps - 1, 0, -1):
        grid[k] = max(grid[k], grid[k + 1] + 1)
    return [min(t, last - k) for k, t in enumerate(grid)]


def _one(session: Any, image: Any, key: int, grid: list[int], abar: Any, c: int, length: float) -> Any:
    """One label map, H x W: reverse steps between the times of the grid; the last takes the arg max, unless it is the
    only one."""
    x_t = (_uniform(_derive_key(key, _X_T), image.shape[1:]) * np.float32(c)).astype(np.uint8)
    for t, s in itertools.pairwise(grid):
        logits = session.run(None, {"x_t": x_t[None], "t": np.array([t]), "images": image[None]})[0][0]
        p = np.exp(logits - logits.max(0))
        p /= p.sum(0)
        if abar[t] < 0.5 and (s > 0 or len(grid) == 2):
            race = _correlated_exponential(_derive_key(_derive_key(key, s), _X_0), p.shape, length)
            p = ((p / race).argmax(0) == np.arange(c)[:, None, None]).astype(np.float32)
        is_x_t = x_t == np.arange(c)[:, None, None]
        kept = abar[t] / abar[s], abar[t], abar[s]
        step, full, past = ((np.float32(a), np.float32((1 - a) / c)) for a in kept)
        w = p / (full[0] * is_x_t + full[1])
        p = (step[0] * is_x_t + step[1]) * (past[0] * w + past[1] * w.sum(0))
        race = p if s == 0 else p / -np.log1p(-_uniform(_derive_key(key, s), p.shape))
        x_t = race.argmax(0).astype(np.uint8)
    return x_t


# The keyed noise of utils/noise.py.
_X_T = 0x71299D1A2A7ABD80  # BLAKE2b of "x_T", the purpose of the first draw; likewise
_X_0, _RADIUS, _ANGLE = 0x2FF2CAACDD950D73, 0xB61FE7891802D15A, 0x68F11B556CAA1DF3
_64 = 2**64 - 1


def _derive_key(*parts: int) -> int:
    key = 0
    for part in parts:
        key = _mix64(_mix64(key) ^ (part & _64))
    return key


def _correlated_exponential(key: int, shape: tuple[int, ...], length: float) -> Any:
    rows, columns = (_smoothing(side, length) for side in shape[1:])
    coarse = shape[0], rows.shape[1], columns.shape[1]
    radius, angle = (_uniform(_derive_key(key, purpose), coarse) for purpose in (_RADIUS, _ANGLE))
    normal = np.sqrt(-2 * np.log1p(-radius)) * np.cos(np.float32(math.tau) * angle)
    below = np.vectorize(math.erfc)(rows @ normal @ columns.T / -math.sqrt(2)) / 2
    return -np.log1p(-np.minimum(below, 1 - 2.0**-24)).astype(np.float32)


def _smoothing(side: int, length: float) -> Any:
    spacing = max(1.0, length / 2)
    points = np.float32(spacing) * np.arange(-3, math.ceil((side - 1) / spacing) + 4, dtype=np.float32)
    weights = np.exp(-2 * ((np.arange(side, dtype=np.float32)[:, None] - points) / np.float32(length)) ** 2)
    return weights / np.linalg.norm(weights, axis=1, keepdims=True)


def _image_key(image: Any) -> int:
    bits = (image + np.float32(0)).view(np.uint32).ravel()
    position = np.arange(bits.size, dtype=np.uint32)
    low = _mix32(bits ^ _mix32(position))
    high = _mix32(low ^ _mix32(position ^ np.uint32(0x5BD1E995)))
    low_sum, high_sum = (int(half.view(np.int32).sum(dtype=np.int64)) for half in (low, high))
    return _mix64(((low_sum << 32) ^ high_sum) & _64)


def _uniform(key: int, shape: tuple[int, ...]) -> Any:
    key = _mix64(key)
    position = np.arange(int(np.prod(shape)), dtype=np.uint32)
    bits = _mix32(_mix32(position + np.uint32(key & 0xFFFFFFFF)) ^ np.uint32(key >> 32)).reshape(shape)
    uniform = ((bits >> np.uint32(1)).astype(np.float32) + np.float32(0.5)) * np.float32(2.0**-31)
    return np.minimum(uniform, np.float32(1 - 2.0**-24))


def _mix32(x: Any) -> Any:
    x = (x ^ (x >> np.uint32(16))) * np.uint32(0x7FEB352D)
    x = (x ^ (x >> np.uint32(15))) * np.uint32(0x846CA68B)
    return x ^ (x >> np.uint32(16))


def _mix64(x: int) -> int:
    x = (x + 0x9E3779B97F4A7C15) & _64
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & _64
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & _64
    return x ^ (x >> 31)
