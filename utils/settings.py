"""From a YAML file and a command line to checked settings, with messages that help where something is wrong."""

import difflib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from utils.errors import UserError

SettingsType = TypeVar("SettingsType", bound=BaseModel)
_EXPONENT_WITHOUT_POINT = re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+")


def load_settings(schema: type[SettingsType], arguments: Sequence[str], default_file: str) -> SettingsType:
    """Settings from `[FILE.yml] [key=value ...]`, checked against `schema`.

    The file's settings come first, then what its `recipes` hold for the chosen `dataset_file`, then the overrides.

    Raises:
        UserError: naming the key, what was expected, and the nearest name that exists.
    """
    file, overrides = _split_arguments(arguments, default_file)
    common = read_yaml(file)
    recipes = common.pop("recipes", {})
    if not isinstance(recipes, dict) or not all(isinstance(recipe, dict) for recipe in recipes.values()):
        raise UserError(f"{file}: `recipes` must map names of data sets to settings")
    changes = [_parse_override(text) for text in overrides]
    settings = dict(common)
    for keys, value in changes:
        if keys == ["dataset_file"]:
            settings["dataset_file"] = value
    settings = _merge(settings, recipes.get(str(settings.get("dataset_file")), {}))
    for keys, value in changes:
        settings = _merge(settings, _nested(keys, value))
    return check_settings(schema, settings, str(file))


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file.

    Raises:
        UserError: for a file that is missing, unreadable, not YAML, or not a mapping.
    """
    try:
        content = _numbers(yaml.safe_load(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not a text file") from error
    except (yaml.YAMLError, RecursionError, ValueError) as error:  # recursion: what contains itself
        raise UserError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} must hold settings as `key: value` lines; it holds {_describe(content)}")
    return content


def check_settings(schema: type[SettingsType], settings: Mapping[str, Any], source: str) -> SettingsType:
    """`settings` as an object of `schema`; `source` names where they come from in the message."""
    try:
        return schema.model_validate(dict(settings))
    except ValidationError as error:
        lines = [_explain(schema, problem) for problem in error.errors(include_url=False)]
        raise UserError(f"{source}: " + "\n  ".join(lines)) from error


def _split_arguments(arguments: Sequence[str], default_file: str) -> tuple[Path, list[str]]:
    files = [text for text in arguments if "=" not in text]
    if len(files) > 1:
        raise UserError(f"expected one settings file, got {', '.join(files)}; overrides are written key=value")
    return Path(files[0] if files else default_file), [text for text in arguments if "=" in text]


def _parse_override(text: str) -> tuple[list[str], Any]:
    key, _, value = text.partition("=")
    if not all(key.split(".")):
        raise UserError(f"override {text!r}: expected key=value, for example optim.learning_rate=3e-4")
    try:
        return key.split("."), _numbers(yaml.safe_load(value))
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise UserError(f"override {text!r}: the value is not valid YAML") from error


def _nested(keys: Sequence[str], value: Any) -> dict[str, Any]:
    for key in reversed(keys):
        value = {key: value}
    return dict(value)


def _merge(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`changes` laid over `base`, mapping by mapping."""
    merged = dict(base)
    for key, value in changes.items():
        old = merged.get(key)
        merged[key] = _merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged


def _numbers(value: Any) -> Any:
    """YAML 1.1 reads 1e-4 as text; everybody who writes it means the number."""
    if isinstance(value, dict):
        return {str(key): _numbers(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_numbers(item) for item in value]
    if isinstance(value, str) and _EXPONENT_WITHOUT_POINT.fullmatch(value):
        return float(value)
    return value


def _explain(schema: type[BaseModel], problem: Any) -> str:
    path = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        names = [name for name in all_keys(schema) if not path.startswith(f"{name}.")]
        close = difflib.get_close_matches(path, names, n=1, cutoff=0.5) or [
            name for name in names if name.split(".")[-1] == path.split(".")[-1]
        ]
        hint = f"did you mean `{close[0]}`?" if close else f"there are: {', '.join(names)}"
        return f"unknown key `{path}`; {hint}"
    message = problem["msg"].removeprefix("Value error, ").removeprefix("Input ")
    if problem["type"] == "value_error":
        return f"`{path}`: {message}" if path else message
    return f"`{path}` {message}, but it is {_describe(problem['input'])}"


def all_keys(schema: type[BaseModel], prefix: str = "") -> list[str]:
    """The names of all settings and groups of settings, as on the command line."""
    keys = []
    for name, field in schema.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            keys += all_keys(field.annotation, f"{prefix}{name}.")
        keys.append(prefix + name)
    return keys


def _describe(value: Any) -> str:
    text = repr(value)
    return "nothing" if value is None else text if len(text) <= 60 else text[:57] + "..."
