"""The length of a run: one setting, from which everything that depends on progress follows."""

import re
from typing import Annotated, Any

from pydantic import BeforeValidator

_UNITS = {"epoch": "epochs", "image": "images", "step": "steps"}
_SECONDS = {"s": 1, "sec": 1, "second": 1, "min": 60, "minute": 60, "h": 3600, "hour": 3600}


def _parse(value: Any, units: dict[str, Any], example: str) -> tuple[float, str]:
    match = re.fullmatch(r"\s*([0-9.]+(?:[eE][-+]?\d+)?)\s*([a-z]+)\s*", value) if isinstance(value, str) else None
    unit = "" if match is None else match[2] if match[2] in units else match[2].removesuffix("s")
    if match is None or unit not in units:
        raise ValueError(f"expected a number and a unit ({', '.join(units)}), such as {example}; got {value!r}")
    try:
        number = float(match[1])
    except ValueError:
        number = 0
    if not 0 < number < 1e12:
        raise ValueError(f"expected a positive number, such as {example}; got {value!r}")
    return number, unit


def _duration(value: Any) -> str:
    number, unit = _parse(value, _UNITS, "13 epochs")
    return f"{number:.15g} {_UNITS[unit]}"


def _time(value: Any) -> str:
    _parse(value, _SECONDS, "9 min")
    return str(value)


Duration = Annotated[str, BeforeValidator(_duration)]
"""Such as "13 epochs", "3.2e6 images" or "5000 steps"."""

WallTime = Annotated[str, BeforeValidator(_time)]
"""Such as "9 min", "2 h" or "30 s"."""


def num_steps(duration: str, num_images: int, batch_size: int) -> int:
    """The number of optimiser steps of a duration, at least 1.

    >>> num_steps("13 epochs", num_images=2048, batch_size=32), num_steps("3.2e6 images", 2048, 128)
    (832, 25000)
    """
    number, unit = _parse(duration, _UNITS, "")
    images = {"epoch": number * num_images, "image": number, "step": number * batch_size}[unit]
    return max(1, int(images // batch_size))


def seconds(time: str) -> float:
    """The seconds of a wall time.

    >>> seconds("9 min"), seconds("1.5 hours")
    (540.0, 5400.0)
    """
    number, unit = _parse(time, _SECONDS, "")
    return number * _SECONDS[unit]
