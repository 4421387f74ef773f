"""Text from files, file names and users, which may contain what no terminal should receive."""

import re

UNUSABLE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")
"""Control characters other than white space, and surrogates, which represent the invalid bytes of file names."""


def visible(text: str) -> str:
    r"""`text` with escapes for what a terminal would obey or reject.

    >>> visible("\x1b[2J caf\udce9.png")
    '\\x1b[2J caf\\udce9.png'
    """
    return UNUSABLE.sub(lambda found: ascii(found[0])[1:-1], text)
