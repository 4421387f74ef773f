"""Text that others wrote cannot act: in terminals, and in spreadsheets."""

import csv
import doctest
import io
from typing import Any

import pytest

from evaluation import ImageScores, Result
from evaluation.tables import per_image_csv
from utils import text


def test_examples_in_the_docstrings() -> None:
    assert doctest.testmod(text) == (0, 2)


@pytest.mark.parametrize(
    ("value", "cell"),
    [
        ("=HYPERLINK(1)", "'=HYPERLINK(1)"), ("+1", "'+1"), ("@x", "'@x"), ("-x", "'-x"), (-2, "-2"), (0.1, "0.1"),
        ("\x1b[31m", "\ufffd[31m"), ("\t=1", "\ufffd=1"), ("\udce9", "\ufffd"), ("a, \"b\"", "a, \"b\""),
    ],
)  # fmt: skip
def test_cell_is_neither_a_formula_nor_a_command(value: Any, cell: str) -> None:
    (row,) = csv.reader(io.StringIO(text.csv_text([[value, "end"]])))
    assert row == [cell, "end"]


def test_names_of_images_are_harmless_in_the_files_of_an_evaluation() -> None:
    scores = ImageScores(0, "=cmd|' /C calc'!A0", 3, (1, 1), {"ged_16": -0.25})
    (row,) = csv.DictReader(io.StringIO(per_image_csv([Result("distribution", [[scores]], [16])])))
    assert (row["name"], row["ged_16"]) == ("'=cmd|' /C calc'!A0", "-0.25")
