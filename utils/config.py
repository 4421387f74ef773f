"""The base class of every configuration, and its validation with messages that name the key and what would work."""

import difflib
import reprlib
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, TypeVar, get_args

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, validate_call

from utils.errors import UserError

_SHOWN = 10
_REPR = reprlib.Repr()  # bounded, whatever the size of a value
_REPR.maxlevel, _REPR.maxlist, _REPR.maxtuple, _REPR.maxdict = 4, 20, 20, 20
_REPR.maxstring = _REPR.maxother = _REPR.maxlong = 80

MAX_CLASSES, MAX_CHANNELS = 256, 4096
"""A class fits one byte; a file that claims more channels is damaged."""

Positive = Annotated[int, Field(ge=1)]
NonNegative = Annotated[int, Field(ge=0)]
BatchSize = Annotated[int, Field(ge=1, le=2**16)]
NumWorkers = Annotated[int, Field(ge=0, le=256)]
NumSamples = Annotated[int, Field(ge=1, le=10_000)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]
Side = Annotated[int, Field(ge=1, le=2**16)]
Size = Annotated[tuple[Side, Side], Field(strict=False)]
Range = Annotated[tuple[float, float], Field(strict=False)]


class Config(BaseModel):
    """Settings of one part: immutable, with unknown keys, wrong types and non-finite numbers refused."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


validate_arguments = validate_call(config=ConfigDict(strict=True, allow_inf_nan=False))
"""Decorates a function whose arguments come from settings; `utils.modules.call` explains those that are refused."""

ConfigType = TypeVar("ConfigType", bound=BaseModel)


def choice_of(registry: Iterable[str]) -> Any:
    """A pydantic annotation for one of the names in a registry; names registered later are accepted, too.

    >>> class Shape(Config):
    ...     kind: choice_of(["round", "square"])
    >>> Shape(kind="round").kind
    'round'
    """

    def check(name: str) -> str:
        if name not in registry:
            raise ValueError(f"unknown name {name!r}; choose from: {', '.join(registry)}")
        return name

    return Annotated[str, AfterValidator(check), Field(json_schema_extra={"enum": list(registry)})]


def as_list(value: Any) -> Any:
    """Wrap a single value in a list, so that `seeds: 0` means `seeds: [0]`."""
    return value if isinstance(value, list) else [value]


AsList = BeforeValidator(as_list)


def validate(schema: type[ConfigType], values: Any, source: str) -> ConfigType:
    """Create an instance of `schema` from plain data; `source` says in messages where the data comes from. Raises
    UserError with the key, what was expected, and the closest valid name, one line per problem."""
    if not isinstance(values, Mapping):
        raise UserError(f"{source}: expected a mapping, but it is {abbreviate(values)}")
    try:
        return schema.model_validate(dict(values))
    except ValidationError as error:
        raise UserError(f"{source}: {explain(schema, error)}") from error


def explain(schema: type[BaseModel], error: ValidationError) -> str:
    """The problems that pydantic found, one line each, at most ten."""
    problems = error.errors(include_url=False)
    lines = [_explain(schema, problem) for problem in problems[:_SHOWN]]
    return "\n  ".join([*lines, f"and {len(problems) - _SHOWN} more"] if len(problems) > _SHOWN else lines)


def all_keys(schema: type[BaseModel], prefix: str = "") -> list[str]:
    """The names of all settings and groups of settings, with dots as on the command line."""
    keys = []
    for name, field in schema.model_fields.items():
        inner = nested_schema(field.annotation)
        if inner is not None:
            keys += all_keys(inner, f"{prefix}{name}.")
        keys.append(prefix + name)
    return keys


def nested_schema(annotation: Any) -> type[BaseModel] | None:
    """The schema inside an annotation such as `Inner` or `Inner | None`."""
    candidates = [annotation, *get_args(annotation)]
    return next((inner for inner in candidates if isinstance(inner, type) and issubclass(inner, BaseModel)), None)


def abbreviate(value: Any) -> str:
    """A value as a message shows it."""
    text = _REPR.repr(value)
    return "nothing" if value is None else text if len(text) <= 60 else text[:57] + "..."


def _explain(schema: type[BaseModel], problem: Any) -> str:
    path = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        names = [name for name in all_keys(schema) if not path.startswith(f"{name}.")]
        close = difflib.get_close_matches(path, names, n=1, cutoff=0.5) or [
            name for name in names if name.split(".")[-1] == path.split(".")[-1]
        ]
        hint = f"did you mean `{close[0]}`?" if close else f"valid keys: {', '.join(names)}"
        return f"unknown key `{path}`; {hint}"
    message = problem["msg"].removeprefix("Value error, ").removeprefix("Input ")
    if problem["type"] == "value_error":
        return f"`{path}`: {message}" if path else message
    return f"`{path}` {message}, but it is {abbreviate(problem['input'])}"
