"""Modules that settings name by their dotted name, and calls of the functions in them."""

import importlib
import inspect
import os
import sys
from collections.abc import Callable, Collection
from types import ModuleType
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from utils.config import explain
from utils.errors import UserError

Result = TypeVar("Result")


def import_module(name: str, setting: str, examples: Collection[str]) -> ModuleType:
    """Import the module `name`, a dotted name, which may also lie in the current folder unless it is one of `examples`.

    Raises UserError, naming the setting and modules that would work, if there is no such module; also if it needs a
    package that is not installed.
    """
    if name not in examples and os.getcwd() not in sys.path:  # what ours imports is not looked for there
        sys.path.append(os.getcwd())
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and f"{name}.".startswith(f"{error.name}."):
            raise UserError(
                f"{setting}: there is no module {name}; use one of {', '.join(examples)}, or the name of your own"
            ) from error
        raise UserError(f"{setting}: {name} needs the package {error.name}, which is not installed") from error
    except (TypeError, ValueError) as error:
        raise UserError(f"{setting}: {name!r} is not the dotted name of a module") from error


def optional_package(name: str, needed_by: str) -> Any:
    """The package `name`, which only some users need. Raises UserError with the command that installs it; `needed_by`
    begins the message."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise UserError(f"{needed_by} requires {name}: pip install {name}") from error


def call(module: ModuleType, function: str, setting: str, /, *args: Any, **params: Any) -> Any:
    """Call `module.function(*args, **params)`; `setting` is the name of the setting that holds `params`. Raises
    UserError if the module lacks the function, or the function or its config class refuses the parameters."""
    made: Callable[..., Any] | None = getattr(module, function, None)
    if made is None:
        name = "dataset_file" if setting == "dataset_params" else setting.removesuffix("_params")
        raise UserError(f"{name}: {module.__name__} has no function `{function}`")
    try:
        inspect.signature(made).bind(*args, **params)
    except TypeError as error:
        accepted = ", ".join(inspect.signature(made).parameters)
        raise UserError(f"{setting}: {error}; {module.__name__} accepts: {accepted}") from error
    try:
        return made(*args, **params)
    except ValidationError as error:
        raise UserError(f"{setting}: {explain(_schema_named(error.title, module), error)}") from error


def _schema_named(name: str, module: ModuleType) -> type[BaseModel]:
    schema = getattr(module, name, BaseModel)
    return schema if isinstance(schema, type) and issubclass(schema, BaseModel) else BaseModel
