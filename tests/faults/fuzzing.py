"""How inputs are generated, and what every script has to answer: a result or a `UserError`."""

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st

from tests.faults.conftest import LONG, trap
from utils.errors import UserError

TIMES = 25 if LONG else 1
Main = Callable[[Sequence[str]], object]


def inputs(number: int) -> Any:
    """The number of inputs that a test generates; they are the same in every short run."""
    return settings(
        max_examples=number * TIMES, deadline=None, database=None, derandomize=not LONG,
        phases=[Phase.generate], suppress_health_check=list(HealthCheck),
    )  # fmt: skip


def survives(main: Main, argv: Sequence[str], bench: Path) -> bool:
    """Whether the script accepts the input; exceptions other than a `UserError` pass."""
    try:
        main(list(argv))
        accepted = True
    except UserError as error:
        assert str(error)
        accepted = False
    assert not trap(bench).exists(), "code was executed"
    assert list(bench.rglob(".*.tmp")) == [], "an incomplete output"
    return accepted


plain = st.one_of(
    st.none(), st.booleans(), st.sampled_from([-1, 0, 1, 2, 3, 7, 33, 64, 10**6, 2**31, 2**63, 10**30]),
    st.floats(), st.text(max_size=8), st.sampled_from(["1e-4", "~", "${X}", ".", "\0"]),
    st.sampled_from(["auto", "cpu", "cuda:7", "weighted", "models.unet", "diffusion.classifier"]),
)  # fmt: skip
values = st.recursive(
    plain,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=5,
)
TRAPS = [
    "!!python/object/apply:os.mkdir [trap]", "!!python/object/new:os.mkdir [trap]", "!!python/name:os.system",
    "&a [*a]", "{<<: *b}", "[" * 500, "0x", "1_000", "2024-13-45", "!!binary x", "? x", "- - : -", "\t", "%YAML 9",
]  # fmt: skip


def changed(whole: bytes, seed: int) -> bytes:
    """`whole` with changed bytes, without some of them, or truncated."""
    generator = random.Random(seed)
    how, place = generator.randrange(3), generator.randrange(len(whole))
    if how == 0:
        return whole[:place]
    if how == 1:
        return whole[:place] + whole[place + generator.randrange(1, 100) :]
    damaged = bytearray(whole)
    for _ in range(generator.choice([1, 1, 5, 50])):
        damaged[generator.randrange(len(whole))] = generator.randrange(256)
    return bytes(damaged)


seeds = st.integers(0, 2**32)
