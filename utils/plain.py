"""Plain data, of which settings and checkpoints consist: a bounded walk over it, and a check of its values."""

import math
from collections.abc import Iterator
from typing import Any

from utils.errors import UserError
from utils.text import UNUSABLE, visible

MAX_DEPTH, MAX_ENTRIES = 40, 200_000

Place = tuple[Any, ...]
"""The keys and indices that lead to a value."""


def leaves(tree: Any) -> Iterator[tuple[Place, Any]]:
    """What nested dicts, lists and tuples consist of, keys included, each with its place.

    Raises ValueError for more than 40 levels, as of a list that contains itself, and for more than 200,000 entries.
    Entries that occur repeatedly count each time: a small file can refer to one list exponentially often.
    """
    waiting: list[tuple[Place, Any]] = [((), tree)]
    room = MAX_ENTRIES
    while waiting:
        place, value = waiting.pop()
        if not isinstance(value, dict | list | tuple):
            yield place, value
            continue
        room -= len(value)
        if room < 0 or len(place) == MAX_DEPTH:
            raise ValueError(f"it has more than {MAX_ENTRIES:,} entries or {MAX_DEPTH} levels")
        if isinstance(value, dict):
            waiting += [((*place, key), key) for key in value]
        items = value.items() if isinstance(value, dict) else enumerate(value)
        waiting += [((*place, key), item) for key, item in items]


def check_plain(tree: Any, source: str, *others: type) -> None:
    """Check that nested dicts and lists hold only text, finite numbers, booleans, None, and values of the types
    `others`. Raises UserError with the place of anything else, such as whole numbers beyond 64 bits, and text with
    control characters or invalid Unicode."""
    try:
        for place, leaf in leaves(tree):
            problem = None if isinstance(leaf, others) else _problem(leaf)
            if problem is not None:
                where = visible(".".join(map(str, place)))
                raise ValueError(f"`{where[:100]}` {problem}" if place else f"it {problem}")
    except ValueError as error:
        raise UserError(f"{source}: {error}") from error


def _problem(leaf: Any) -> str | None:
    if leaf is None or isinstance(leaf, bool):
        return None
    if isinstance(leaf, float):
        return None if math.isfinite(leaf) else f"is {leaf}; expected a finite number"
    if isinstance(leaf, int):
        return None if abs(leaf) < 2**63 else "is a number of more than 64 bits"
    if not isinstance(leaf, str):
        return f"is a {type(leaf).__name__}; expected text, numbers, lists and mappings"
    unusable = UNUSABLE.search(leaf)
    return None if unusable is None else f"contains the unusable character {unusable[0]!a}"
