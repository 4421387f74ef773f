"""Hostile inputs: mutations of plain data and of bytes, and the harness that passes them to an entry point.

The long form passes 100,000 inputs, the short one a hundredth of them. An input is a function of its number.
"""

import copy
import datetime
import math
import random
import struct
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from tests.faults.conftest import LONG
from utils.errors import UserError

FACTOR = 100 if LONG else 1
LONGEST_SECONDS, LONGEST_MESSAGE = 10, 20_000

LOOP: list[Any] = []
LOOP.append(LOOP)
LAUGHS: Any = ["ha"]
for _ in range(30):
    LAUGHS = [LAUGHS] * 10
DEEP: Any = [1]
for _ in range(100):
    DEEP = [DEEP]

PLAIN = [
    None, True, -1, 0, 1, 2, 7, 300, 2**31, -(2**63), 2**63, 10**30, 0.5, -0.0, 1e308, math.nan, math.inf, "", "x", "7",
    "1e-4", "\0", "\ud800", "\x1b[2J", "../../escaped", "/escaped", "=1+1", "$\\frac$", "${HOME}", "a" * 5000, [], {},
    [[]], [0] * 3000, {"": {}}, {"a": 1}, "auto", "cuda:9", "os", "models.unet", "diffusion.classifier",
]  # fmt: skip
OTHER = [LOOP, LAUGHS, DEEP, b"x", 1j, datetime.date(2024, 1, 2), {1}, 3 + 0j]
TENSORS = [
    torch.ones(1), torch.zeros(0), torch.ones(1).expand(10**6, 10**6), torch.full((3,), math.nan), torch.ones(2, 3).T,
    torch.ones(3, dtype=torch.int64), torch.ones(3).half(), torch.ones(2, device="meta"), torch.eye(2).to_sparse(),
    torch.ones(2, dtype=torch.complex64), torch.tensor(True), torch.ones(2)._neg_view(),
]  # fmt: skip


def mutated(tree: Any, generator: random.Random, values: list[Any]) -> Any:
    """A copy of nested dicts and lists in which one to three places are changed."""
    tree = copy.copy(tree)
    for _ in range(generator.choice([1, 1, 1, 2, 3])):
        holder, key = _copied_place(tree, generator)
        if holder is None:
            return generator.choice(values)
        how, old = generator.randrange(10), holder[key]
        if how == 0:
            del holder[key]
        elif how == 1 and isinstance(holder, dict):
            holder[generator.choice(["", "more", 3, "\ud800", "../x", "x" * 300])] = holder.pop(key)
        elif how == 2:
            holder[key] = [old]
        elif how == 3 and isinstance(old, int | float):
            holder[key] = generator.choice([-old, old + 1, str(old), float(old), old * 1000])
        elif how == 4 and isinstance(old, list | tuple):
            holder[key] = generator.choice([list(old)[:-1], [*old, *old], tuple(old), list(old)[::-1]])
        else:
            holder[key] = generator.choice(values)
    return tree


def _copied_place(tree: Any, generator: random.Random) -> tuple[Any, Any]:
    """A container in the tree and one of its keys; all that leads there is copied, so that the rest can be shared."""
    holder, key = None, None
    while isinstance(tree, dict | list) and tree and (holder is None or generator.random() < 0.8):
        holder = tree
        key = generator.choice([*tree] if isinstance(tree, dict) else range(len(tree)))
        holder[key] = tree = copy.copy(holder[key])
    return holder, key


def mutated_bytes(whole: bytes, generator: random.Random) -> bytes:
    """Bytes that are changed, cut, repeated or replaced by extreme numbers in one to four places."""
    data = bytearray(whole)
    for _ in range(generator.choice([1, 1, 2, 4])):
        if not data:
            break
        place, length, how = generator.randrange(len(data)), generator.choice([1, 2, 4, 8, 64]), generator.randrange(7)
        if how == 0:
            del data[place:]
        elif how == 1:
            del data[place : place + length]
        elif how == 2:
            data[place:place] = data[place : place + length] * generator.choice([1, 1, 100])
        elif how == 3:
            size, value = generator.choice(["B", "H", "I", "Q"]), generator.choice([0, 1, 127, 255])
            order = generator.choice("<>")
            data[place : place + struct.calcsize(size)] = struct.pack(f"{order}{size}", value)
        elif how == 4:
            data[place : place + length] = b"\xff" * length
        else:
            data[place] = generator.randrange(256)
    return bytes(data)


def written(path: Path, content: bytes) -> Path:
    """`path`, with that content."""
    path.write_bytes(content)
    return path


def attack(
    name: str, number: int, make: Callable[[random.Random, Path], Any], read: Callable[[Any], object], folder: Path
) -> None:
    """Pass inputs to an entry point, which may only raise a `UserError`, quickly, and only write into `folder/inside`.

    `make` creates an input from a generator and that folder, `read` passes it on.
    """
    inside, accepted = folder / "inside", 0
    inside.mkdir(exist_ok=True)
    before = sorted(folder.iterdir())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for index in range(number):
            generator = random.Random(f"{name} {index}")
            given = make(generator, inside)
            start = time.monotonic()
            try:
                read(given)
                accepted += 1
            except UserError as error:
                assert 0 < len(str(error)) < LONGEST_MESSAGE, (name, index)
            except Exception as error:
                error.add_note(f"{name}, input {index}")
                raise
            assert time.monotonic() - start < LONGEST_SECONDS, (name, index)
    escaped = [place for place in (Path("/escaped"), folder.parent / "escaped") if place.exists()]
    assert [*escaped, *sorted(folder.iterdir())] == before, "something was written outside"
    print(f"\n{name}: {number} inputs, {accepted} of them accepted")
