"""From a YAML file and `key=value` arguments to validated settings.

A file holds settings and, under `recipes`, more settings for each dataset module; the recipe `default` is for modules
without one of their own. A key is set either at the top level or in the recipes, so that an edit always takes effect.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from utils.config import Config, abbreviate, validate
from utils.errors import UserError
from utils.plain import check_plain
from utils.yaml_files import parse_yaml, read_yaml

SettingsType = TypeVar("SettingsType", bound=Config)

DEFAULT_RECIPE = "default"


def load_settings(schema: type[SettingsType], arguments: Sequence[str], default_file: str) -> SettingsType:
    """Settings from `[FILE.yml] [key=value ...]`; see `load_settings_and_recipe`."""
    return load_settings_and_recipe(schema, arguments, default_file)[0]


def load_settings_and_recipe(
    schema: type[SettingsType], arguments: Sequence[str], default_file: str
) -> tuple[SettingsType, str]:
    """Settings from `[FILE.yml] [key=value ...]`, and where they come from, for the log.

    The recipe of the chosen `dataset_file` is added to the file's settings; the arguments override both. If they name
    another module, as in `network=my_network`, the file's parameters (`network_params`) do not apply to it; of another
    dataset, only those of its recipe do. Raises UserError, naming the key, what was expected, and the nearest name that
    exists.
    """
    file, overrides = _split_arguments(schema, arguments, default_file)
    settings = read_yaml(file)
    recipes = settings.pop("recipes", {})
    if not isinstance(recipes, dict) or not all(isinstance(recipe, dict) for recipe in recipes.values()):
        raise UserError(f"{file}: `recipes` must map dataset modules to settings")
    for recipe in recipes:
        for key in _keys_of_both(settings, recipes[recipe]):
            raise UserError(f"{file}: `{key}` is set at the top level and in the recipe {recipe}; set it in one place")
    dataset_file = str(dict(overrides).get("dataset_file", settings.get("dataset_file")))
    if "dataset_file" in dict(overrides) and dataset_file != str(_value_in_file(schema, settings, "dataset_file")):
        settings.pop("dataset_params", None)
    name = dataset_file if dataset_file in recipes else DEFAULT_RECIPE
    settings = _merge(settings, recipes.get(name, {}))
    for key, value in overrides:  # parameters of a network are of no use to another one
        if key in schema.model_fields and value != _value_in_file(schema, settings, key):
            settings.pop(f"{key}_params", None)
    for key, value in overrides:
        settings = _merge(settings, _nested(key, value))
    source = f"{file}, recipe {name}" if name in recipes else str(file)
    return validate(schema, settings, str(file)), source


def _value_in_file(schema: type[Config], settings: Mapping[str, Any], key: str) -> Any:
    return settings.get(key, schema.model_fields[key].default)


def settings_from_arguments(schema: type[SettingsType], arguments: Sequence[str]) -> SettingsType:
    """Settings from `key=value ...` alone. Raises UserError as `load_settings`."""
    settings: dict[str, Any] = {}
    for key, value in map(_parse_override, arguments):
        settings = _merge(settings, _nested(key, value))
    return validate(schema, settings, "the arguments")


def _split_arguments(
    schema: type[Config], arguments: Sequence[str], default_file: str
) -> tuple[Path, list[tuple[str, Any]]]:
    files = [text for text in arguments if not _is_override(schema, text)]
    if len(files) > 1:
        raise UserError(f"expected one settings file, got {', '.join(files)}; overrides are written key=value")
    overrides = [_parse_override(text) for text in arguments if _is_override(schema, text)]
    return Path(files[0] if files else default_file), overrides


def _is_override(schema: type[Config], text: str) -> bool:
    """Whether an argument is `key=value` and not the path of a settings file, which may contain `=` too."""
    key, equals, _ = text.partition("=")
    looks_like_file = text.endswith((".yml", ".yaml")) and key.partition(".")[0] not in schema.model_fields
    return bool(equals) and not looks_like_file and not os.path.isfile(text)


def _parse_override(text: str) -> tuple[str, Any]:
    key, _, value = text.partition("=")
    if not all(key.split(".")):
        raise UserError(f"override {text!r}: expected key=value, for example optim.learning_rate=3e-4")
    source = f"override {abbreviate(text)}: the value"
    parsed = parse_yaml(value, source)
    check_plain(_nested(key, parsed), source)
    return key, parsed


def _keys_of_both(one: Mapping[str, Any], other: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """The keys that are set in both; mappings share a key only if they share one inside."""
    for key in one.keys() & other.keys():
        if isinstance(one[key], dict) and isinstance(other[key], dict):
            yield from _keys_of_both(one[key], other[key], f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"


def _nested(key: str, value: Any) -> dict[str, Any]:
    for part in reversed(key.split(".")):
        value = {part: value}
    return dict(value)


def _merge(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with `changes`, mapping by mapping."""
    merged = dict(base)
    for key, value in changes.items():
        old = merged.get(key)
        merged[key] = _merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged
