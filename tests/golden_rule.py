"""The rule that generates the weights and inputs of the golden results, and the files that contain the results.

Everything is a sine or a remainder of the flattened index i = 0, 1, 2, ... in C order, computed in float64 and then
cast to float32, so that two programs that share nothing but this text agree on a network of millions of parameters.
"""

import dataclasses
import json
import math
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

GOLDEN = Path(__file__).parent / "golden"


@dataclasses.dataclass(frozen=True)
class Golden:
    """`settings` (the json file) and `arrays` (the npz file) of one golden result."""

    settings: dict[str, Any]
    arrays: dict[str, Tensor]


def load(name: str) -> Golden:
    """The golden result of that name."""
    settings = json.loads((GOLDEN / f"{name}.json").read_text())
    with np.load(GOLDEN / f"{name}.npz") as arrays:
        return Golden(settings, {key: torch.from_numpy(arrays[key]) for key in arrays.files})


def parameter(name: str, shape: Sequence[int]) -> Tensor:
    """The parameter `name`: sines of variance about 1 / fan-in for matrices, near 1 or 0 for scales and offsets."""
    i = torch.arange(math.prod(shape), dtype=torch.float64)
    s = torch.sin(1 + 0.37 * i + 0.11 * (zlib.crc32(name.encode()) % 1000)).view(*shape)
    if len(shape) >= 2:
        value = s * math.sqrt(3 / math.prod(shape[1:]))
    elif name.endswith("weight"):
        value = 1 + 0.1 * s
    else:
        value = 0.1 * s
    return value.float()


def state_dict(shapes: Mapping[str, Sequence[int]]) -> dict[str, Tensor]:
    """The parameters with these names and shapes."""
    return {name: parameter(name, shape) for name, shape in shapes.items()}


def weights_of(network: nn.Module) -> dict[str, Tensor]:
    """The parameters of a network, which may be on the meta device."""
    return state_dict({name: tensor.shape for name, tensor in network.state_dict().items()})


def real_input(shape: Sequence[int], salt: int) -> Tensor:
    """A float32 input in [-1, 1]."""
    i = torch.arange(math.prod(shape), dtype=torch.float64)
    return torch.sin(0.013 * i * (1 + salt) + salt).view(*shape).float()


def label_input(shape: Sequence[int], num_classes: int, salt: int) -> Tensor:
    """An int64 label map."""
    i = torch.arange(math.prod(shape))
    return ((i * (7 + salt) + 3 * (i // 13) + (i * i) % (11 + salt)) % num_classes).view(*shape)
