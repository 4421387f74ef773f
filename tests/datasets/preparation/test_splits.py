"""Splits by patient: a function of the seed, without overlap, and the same after a round trip through JSON."""

import json
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datasets.preparation.lidc import Split
from utils.errors import UserError

PATIENTS = [f"patient {number}" for number in range(50)]
FRACTIONS = (0.6, 0.2, 0.2)


@given(number=st.integers(10, 50), seed=st.integers(0, 2**32))
def test_every_patient_is_in_one_split_and_the_fractions_are_kept(number: int, seed: int) -> None:
    split = Split.draw(PATIENTS[:number], FRACTIONS, seed)
    assert sorted(chain(*split.patients.values())) == sorted(PATIENTS[:number])
    for fraction, patients in zip(FRACTIONS, split.patients.values(), strict=True):
        assert abs(len(patients) - fraction * number) <= 1


def test_split_is_a_function_of_patients_fractions_and_seed() -> None:
    split = Split.draw(PATIENTS, FRACTIONS, seed=3)
    assert Split.draw([*reversed(PATIENTS), *PATIENTS], FRACTIONS, seed=3) == split
    assert Split.draw(PATIENTS, FRACTIONS, seed=4).patients != split.patients
    assert Split.draw(PATIENTS, (0.5, 0.25, 0.25), seed=3).patients != split.patients


def test_split_survives_a_round_trip(tmp_path: Path) -> None:
    split = Split.draw(PATIENTS, FRACTIONS, seed=3)
    (tmp_path / "split.json").write_text(split.to_json())
    assert Split.read(tmp_path / "split.json") == split
    assert Split.read(tmp_path / "split.json").to_json() == split.to_json()


def test_split_written_by_hand_needs_only_the_patients(tmp_path: Path) -> None:
    lists = {"test": ["d"], "train": ["c", "a"], "val": ["b"]}
    (tmp_path / "split.json").write_text(json.dumps({"patients": lists}))
    split = Split.read(tmp_path / "split.json")
    assert list(split.patients.items()) == [("train", ["a", "c"]), ("val", ["b"]), ("test", ["d"])]
    assert (split.fractions, split.seed) == (None, None)


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        ({"patients": {"train": ["a"], "val": ["b"], "test": ["a"]}}, "patient a is listed twice"),
        ({"patients": {"train": ["a", "a"], "val": ["b"], "test": ["c"]}}, "patient a is listed twice"),
        ({"patients": {"train": ["a"], "val": [], "test": ["c"]}}, "at least one patient in each of train, val, test"),
        ({"patients": {"train": ["a"], "val": ["b"]}}, "at least one patient in each of train, val, test"),
        ({"train": ["a"]}, "unknown key `train`"),
        ({"patients": {}, "seed": 10**30}, "`seed` should be less than"),
        ({"patients": {}, "fractions": [0.5] * 10**5}, "`fractions` List should have at most 3 items"),
        ([1], "cannot be read"),
        ("[" * 10**5, "cannot be read"),
        ("{", "cannot be read"),
    ],
)
def test_file_that_is_not_a_split_is_refused(tmp_path: Path, contents: Any, message: str) -> None:
    path = tmp_path / "split.json"
    path.write_text(contents if isinstance(contents, str) else json.dumps(contents))
    with pytest.raises(UserError) as error:
        Split.read(path)
    assert str(path) in str(error.value)
    assert message in str(error.value)


@pytest.mark.parametrize("fractions", [(0.5, 0.5, 0.5), (1.0, 0.0, 0.0), (0.5, 0.5), (1.2, -0.1, -0.1)])
def test_impossible_fractions_are_refused(fractions: tuple[float, ...]) -> None:
    with pytest.raises(UserError, match="three positive numbers with sum 1"):
        Split.draw(PATIENTS, fractions, seed=0)


def test_too_few_patients_are_refused() -> None:
    with pytest.raises(UserError, match="at least one patient in each of train, val, test"):
        Split.draw(["a", "b"], FRACTIONS, seed=0)
