"""The reference of all settings: python docs/settings.py > docs/settings.md"""

import json
import sys
import types
import typing
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel
from pydantic.fields import FieldInfo

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from diffusion import UniformConfig
from evaluation.settings import EvalSettings
from models import UNetConfig
from training.model import DERIVED
from training.settings import TrainSettings
from utils.config import nested_schema

_HEAD = """# Settings

`python docs/settings.py > docs/settings.md` generates this page from the classes that validate the settings, with their
defaults. [params.yml](../params.yml), which has a recipe for each dataset, and [params_eval.yml](../params_eval.yml)
change some of them. Every setting can be given on the command line, for example `optim.learning_rate=3e-4`.
"""
_TABLE = "| setting | values | default | meaning |\n| --- | --- | --- | --- |"
_NAMES = {int: "integer", float: "number", str: "text", bool: "true, false", dict: "mapping", types.NoneType: "`null`"}


class Row(NamedTuple):
    """One setting of the reference."""

    name: str
    values: str
    default: str
    meaning: str


def reference() -> str:
    """The whole page in Markdown."""
    sections = {
        "ddpm_train.py": rows(TrainSettings),
        "network_params of models.unet": rows(UNetConfig, "network_params.", skip=DERIVED),
        "process_params of diffusion.uniform": rows(UniformConfig, "process_params."),
        "ddpm_eval.py": rows(EvalSettings),
    }
    lines = [_HEAD]
    for title, section in sections.items():
        lines += [f"## {title}\n", _TABLE, *(f"| `{row.name}` | {' | '.join(row[1:])} |" for row in section), ""]
    return "\n".join(lines)


def rows(
    schema: type[BaseModel], prefix: str = "", defaults: BaseModel | None = None, skip: Collection[str] = ()
) -> Iterator[Row]:
    """One row per setting; the names of nested ones are written as on the command line."""
    for name, field in schema.model_fields.items():
        if name in skip:
            continue
        default = field.default if defaults is None else getattr(defaults, name)
        inner, optional = nested_schema(field.annotation), types.NoneType in typing.get_args(field.annotation)
        if inner is None or optional:
            values = "mapping, `null`" if inner else _values(field)
            yield Row(prefix + name, values, _as_yaml(default), field.description or "")
        if inner is not None:
            yield from rows(inner, f"{prefix}{name}.", default)


def _values(field: FieldInfo) -> str:
    """The choices or types of a setting, and the bounds of numbers."""
    choices = (field.json_schema_extra or {}).get("choices") if isinstance(field.json_schema_extra, dict) else None
    kinds = ", ".join(dict.fromkeys(_choices(choices) if choices else _kinds(field.annotation)))
    bounds = ", ".join(dict.fromkeys(_bounds(field.metadata) + _bounds_inside(field.annotation)))
    return f"{kinds} ({bounds})" if bounds else kinds


def _kinds(annotation: Any) -> Iterator[str]:
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        extra = [item.json_schema_extra for item in arguments[1:] if isinstance(item, FieldInfo)]
        registries = [item["choices"] for item in extra if isinstance(item, dict) and "choices" in item]
        yield from _choices(registries[0]) if registries else _kinds(arguments[0])
    elif origin is typing.Literal:
        yield from _choices(arguments)
    elif origin in (typing.Union, types.UnionType):
        for argument in arguments:
            yield from _kinds(argument)
    elif origin in (list, tuple):
        yield f"list of {' or '.join(_kinds(arguments[0]))}"
    else:
        yield _NAMES[origin or annotation]


def _choices(names: Any) -> Iterator[str]:
    return (f"`{name}`" for name in names)


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


def _as_yaml(value: Any) -> str:
    return f"`{value if isinstance(value, str) else json.dumps(value)}`"


if __name__ == "__main__":
    print(reference(), end="")
