"""The schema of the settings: what it takes, what it refuses, and that it explains itself."""

from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from utils.schema import EvalSettings, TrainSettings

per_schema = pytest.mark.parametrize("schema", [TrainSettings, EvalSettings])


def fields(schema: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, str | None]]:
    """Every key with what is said about it: its description, or the docstring of the group that it is."""
    for name, field in schema.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield prefix + name, field.description or kind.__doc__
            yield from fields(kind, f"{prefix}{name}.")
        else:
            yield prefix + name, field.description


@per_schema
def test_every_key_is_described(schema: type[BaseModel]) -> None:
    described = dict(fields(schema))
    assert len(described) > 10
    assert [name for name, description in described.items() if not description] == []


@per_schema
def test_defaults_fit_the_schema(schema: type[BaseModel]) -> None:
    defaults = schema().model_dump()
    assert schema.model_validate(defaults).model_dump() == defaults


@per_schema
def test_settings_cannot_be_changed_afterwards(schema: type[BaseModel]) -> None:
    with pytest.raises(ValidationError):
        schema().seed = 1  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("group", "name", "value"),
    [
        ("", "time_steps", 0),
        ("", "time_steps", 2.5),
        ("", "time_steps", True),
        ("", "batch_size", -1),
        ("", "batch_size", "8"),
        ("", "batch_size", None),
        ("", "seed", -1),
        ("", "seed", 2**63),
        ("", "max_nonfinite_steps", -1),
        ("", "polyak_alpha", 1.0),
        ("", "polyak_alpha", float("nan")),
        ("", "beta_schedule", "quadratic"),
        ("", "display_freq", 0),
        ("", "dataset_file", 3),
        ("optim", "name", "SGD"),
        ("optim", "learning_rate", 0),
        ("optim", "learning_rate", float("nan")),
        ("optim", "learning_rate", -1e-4),
        ("sampling", "sampler", "euler"),
        ("sampling", "steps", 0),
        ("sampling", "eta", 1.5),
        ("unet_openai", "base_channels", 48),
        ("unet_openai", "channel_mult", []),
        ("unet_openai", "channel_mult", [1, 0]),
        ("unet_openai", "dropout", 1.0),
    ],
)
def test_impossible_values_are_refused(group: str, name: str, value: Any) -> None:
    settings = {group: {name: value}} if group else {name: value}
    with pytest.raises(ValidationError) as refusal:
        TrainSettings.model_validate(settings)
    assert name in refusal.value.errors()[0]["loc"]


def test_learning_rate_may_not_rise() -> None:
    with pytest.raises(ValidationError, match="min_lr is above learning_rate"):
        TrainSettings.model_validate({"optim": {"learning_rate": 1e-4, "lr_params": {"min_lr": 1e-3}}})
    level = {"learning_rate": 1e-4, "lr_params": {"min_lr": 1e-4}}
    assert TrainSettings.model_validate({"optim": level}).optim.lr_params.min_lr == 1e-4
