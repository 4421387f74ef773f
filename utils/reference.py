"""The reference of all settings, made from the schema: python -m utils.reference > docs/settings.md"""

import inspect
import json
import types
import typing
from collections.abc import Iterator
from typing import Any, NamedTuple

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from utils.schema import EvalSettings, Settings, TrainSettings

_HEAD = """# Settings

All settings of the scripts, made from [utils/schema.py](../utils/schema.py) by `python -m utils.reference`. The shipped
[params.yml](../params.yml) and [params_eval.yml](../params_eval.yml) set some of them otherwise, and `recipes` in
`params.yml` more for each data set. Any of them can be given on the command line, such as `optim.learning_rate=3e-4`.
"""


_NAMES = {int: "integer", float: "number", str: "text", bool: "true, false", dict: "mapping", types.NoneType: "`null`"}


class Line(NamedTuple):
    """A setting as it stands in the reference."""

    name: str
    values: str
    default: str
    meaning: str


def reference() -> str:
    """The whole reference as Markdown."""
    parts = [_HEAD]
    for script, schema in (("ddpm_train.py", TrainSettings), ("ddpm_eval.py", EvalSettings)):
        parts.append(f"## {script}\n\n| setting | values | default | meaning |\n| --- | --- | --- | --- |")
        parts.append("".join(_row(line) for line in lines(schema)))
    return "\n".join(parts)


def lines(schema: type[BaseModel], prefix: str = "") -> Iterator[Line]:
    """One line for every setting of a schema; those inside others are named as on the command line."""
    for name, field in schema.model_fields.items():
        inner = field.annotation
        if inspect.isclass(inner) and issubclass(inner, Settings):
            defaults = field.default
            for line in lines(inner, f"{prefix}{name}."):
                own = line.name.removeprefix(f"{prefix}{name}.")
                yield line if "." in own else line._replace(default=_written(getattr(defaults, own)))
        else:
            yield Line(f"{prefix}{name}", _values(field), _written(field.default), field.description or "")


def _values(field: FieldInfo) -> str:
    """What a setting may be: its choices or types, and the bounds of numbers."""
    kinds = ", ".join(dict.fromkeys(_kinds(field.annotation)))
    bounds = ", ".join(dict.fromkeys(_bounds(field.metadata) + _bounds_inside(field.annotation)))
    return f"{kinds} ({bounds})" if bounds else kinds


def _kinds(annotation: Any) -> Iterator[str]:
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        yield from _kinds(arguments[0])
    elif origin is typing.Literal:
        yield from (f"`{choice}`" for choice in arguments)
    elif origin in (typing.Union, types.UnionType):
        for argument in arguments:
            yield from _kinds(argument)
    elif origin is list:
        yield f"list of {' or '.join(_kinds(arguments[0]))}"
    else:
        yield _NAMES[origin or annotation]


def _bounds(metadata: list[Any]) -> list[str]:
    signs = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<", "multiple_of": "multiple of"}
    found = []
    for constraint in metadata:
        if isinstance(constraint, FieldInfo):
            found += _bounds(constraint.metadata)
        for name, sign in signs.items():
            value = getattr(constraint, name, None)
            if value is not None:
                found.append(f"{sign} {'2^63' if value == 2**63 else value}")
    return found


def _bounds_inside(annotation: Any) -> list[str]:
    metadata = list(getattr(annotation, "__metadata__", ()))
    return _bounds(metadata) + [bound for inner in typing.get_args(annotation) for bound in _bounds_inside(inner)]


def _written(value: Any) -> str:
    """A default as YAML would have it."""
    return f"`{value if isinstance(value, str) else json.dumps(value)}`"


def _row(line: Line) -> str:
    return f"| `{line.name}` | {line.values} | {line.default} | {line.meaning} |\n"


if __name__ == "__main__":
    print(reference(), end="")
