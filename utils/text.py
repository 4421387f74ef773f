"""Text from files, file names and users, which may contain what no terminal should receive."""

import csv
import io
import re
from collections.abc import Iterable, Sequence
from typing import Any

UNUSABLE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")
"""Control characters other than white space, and surrogates, which represent the invalid bytes of file names."""


def visible(text: str) -> str:
    r"""`text` with escapes for what a terminal would obey or reject.

    >>> visible("\x1b[2J caf\udce9.png")
    '\\x1b[2J caf\\udce9.png'
    """
    return UNUSABLE.sub(lambda found: ascii(found[0])[1:-1], text)


def csv_cell(value: Any) -> str:
    """A value as text that no spreadsheet takes for a formula and no terminal for a command.

    >>> csv_cell("=1+1"), csv_cell(-1.5), csv_cell(None), csv_cell("nodule 7")
    ("'=1+1", '-1.5', '', 'nodule 7')
    """
    text = "" if value is None else str(value)
    text = "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)
    return f"'{text}" if isinstance(value, str) and text.startswith(("=", "+", "-", "@")) else text


def csv_text(rows: Iterable[Sequence[Any]]) -> str:
    """Rows as a CSV file of harmless cells."""
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows([[csv_cell(value) for value in row] for row in rows])
    return out.getvalue()
