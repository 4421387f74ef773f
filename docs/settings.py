"""The reference of all settings: python docs/settings.py > docs/settings.md"""

import json
import sys
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from datasets.folder import FolderConfig
from diffusion import UniformConfig
from evaluation.settings import EvalSettings
from models import TwoStageConfig, UNetConfig
from training.model import DERIVED
from training.settings import TrainSettings

Schema = Mapping[str, Any]

_HEAD = """# Settings

`python docs/settings.py > docs/settings.md` generates this page from the classes that validate the settings, with their
defaults. [params.yml](../params.yml), which has a recipe for each dataset, and [params_eval.yml](../params_eval.yml)
change some of them. Every setting can be given on the command line, for example `optim.learning_rate=3e-4`.
"""
_TABLE = "| setting | values | default | meaning |\n| --- | --- | --- | --- |"
_TYPES = {"string": "text", "boolean": "true, false", "object": "mapping", "null": "`null`", "array": "list"}
_BOUNDS = {
    "minimum": "≥",
    "exclusiveMinimum": ">",
    "maximum": "≤",
    "exclusiveMaximum": "<",
    "multipleOf": "multiple of",
}


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
        "network_params of models.two_stage": rows(TwoStageConfig, "network_params.", skip=DERIVED),
        "process_params of diffusion.uniform": rows(UniformConfig, "process_params."),
        "dataset_params of datasets.folder": rows(FolderConfig, "dataset_params."),
        "ddpm_eval.py": rows(EvalSettings),
    }
    lines = [_HEAD]
    for title, section in sections.items():
        lines += [f"## {title}\n", _TABLE, *(f"| `{row.name}` | {' | '.join(row[1:])} |" for row in section), ""]
    return "\n".join(lines)


def rows(settings: type[BaseModel], prefix: str = "", skip: Collection[str] = ()) -> Iterator[Row]:
    """One row per setting; the names of nested ones are written as on the command line."""
    schema = settings.model_json_schema()
    defaults = {name: field.get("default") for name, field in schema["properties"].items()}
    for row in _rows(schema, defaults, prefix, schema):
        if row.name.removeprefix(prefix).partition(".")[0] not in skip:
            yield row


def _rows(group: Schema, defaults: Schema, prefix: str, root: Schema) -> Iterator[Row]:
    for name, field in group["properties"].items():
        default, choices = defaults.get(name, field.get("default")), field.get("anyOf", [field])
        inner = next((root["$defs"][choice["$ref"].split("/")[-1]] for choice in choices if "$ref" in choice), None)
        if inner is None or len(choices) > 1:
            values = ", ".join(_values(choice) for choice in choices)
            bounds = "".join(f" ({bound})" for choice in choices if (bound := _bounds(choice.get("items", choice))))
            shown = "required" if name in group.get("required", ()) else _as_yaml(default)
            yield Row(prefix + name, values + bounds, shown, field.get("description", ""))
        if inner is not None:
            yield from _rows(inner, default or {}, f"{prefix}{name}.", root)


def _values(schema: Schema) -> str:
    if "enum" in schema or "const" in schema:
        return ", ".join(f"`{name}`" for name in schema.get("enum", [schema.get("const")]))
    if "items" in schema:
        return f"list of {_values(schema['items'])}"
    return _TYPES.get(schema.get("type", "object"), str(schema.get("type")))


def _bounds(schema: Schema) -> str:
    found = ((sign, schema[name]) for name, sign in _BOUNDS.items() if name in schema)
    return ", ".join(f"{sign} {'2^63' if bound == 2**63 else bound}" for sign, bound in found)


def _as_yaml(value: Any) -> str:
    return f"`{value if isinstance(value, str) else json.dumps(value)}`"


if __name__ == "__main__":
    print(reference(), end="")
