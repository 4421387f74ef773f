"""The walk over plain data is bounded, and its check names the place of what is not plain."""

import datetime
from typing import Any

import pytest

from utils.config import abbreviate
from utils.errors import UserError
from utils.plain import MAX_DEPTH, check_plain, leaves

LOOP: list[Any] = []
LOOP.append(LOOP)
LAUGHS: list[Any] = ["ha"]
for _ in range(30):
    LAUGHS = [LAUGHS] * 10
DEEP: Any = 1
for _ in range(100_000):
    DEEP = [DEEP]


def test_leaves_have_places() -> None:
    tree = {"a": [1, {"b": 2}], "c": ()}
    expected = [(("a",), "a"), (("a", 0), 1), (("a", 1, "b"), "b"), (("a", 1, "b"), 2), (("c",), "c")]
    assert sorted(leaves(tree), key=str) == sorted(expected, key=str)


@pytest.mark.parametrize("tree", [LOOP, LAUGHS, DEEP, {"x": [0] * 300_000}])
def test_endless_data_is_refused(tree: Any) -> None:
    with pytest.raises(UserError, match=f"this file: it has more than 200,000 entries or {MAX_DEPTH} levels"):
        check_plain(tree, "this file")


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (2**63, "`a.1` is a number of more than 64 bits"),
        (float("nan"), "`a.1` is nan; expected a finite number"),
        (10**100, "`a.1` is a number of more than 64 bits"),
        (datetime.date(2024, 1, 2), "`a.1` is a date; expected text, numbers, lists and mappings"),
        ("x\0", r"`a.1` contains the unusable character '\x00'"),
        ("\ud800", r"`a.1` contains the unusable character '\ud800'"),
        ("\x1b[2J", r"`a.1` contains the unusable character '\x1b'"),
        ({"\x9b": 1}, r"`a.1.\x9b` contains the unusable character '\x9b'"),
    ],
)
def test_value_that_is_not_plain_is_named(value: Any, problem: str) -> None:
    with pytest.raises(UserError) as error:
        check_plain({"a": [None, value]}, "this file")
    assert str(error.value) == f"this file: {problem}"


def test_plain_data_and_other_types_pass() -> None:
    check_plain({"a": [None, True, 1.5, -(2**62), "é\n\t€ 名"], 3: [b"x", float("inf")]}, "this file", bytes, float)


@pytest.mark.parametrize("value", [LOOP, LAUGHS, DEEP, "x" * 10**7, {"x": [0] * 300_000}, 10**4000])
def test_any_value_is_abbreviated(value: Any) -> None:
    assert len(abbreviate(value)) <= 60
