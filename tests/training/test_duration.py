"""The length of a run in epochs, images or steps, and of an invocation in minutes."""

import pytest
from pydantic import TypeAdapter, ValidationError

from training.duration import Duration, WallTime, num_steps, seconds

DURATION, WALL_TIME = TypeAdapter(Duration), TypeAdapter(WallTime)


@pytest.mark.parametrize(
    ("text", "steps"),
    [("13 epochs", 832), ("1 epoch", 64), ("0.5 epochs", 32), ("3.2e6 images", 100_000), ("5000 steps", 5000),
     ("7steps", 7), ("1 image", 1), ("12345678 steps", 12345678)],
)  # fmt: skip
def test_durations_are_steps(text: str, steps: int) -> None:
    assert num_steps(DURATION.validate_python(text), num_images=2048, batch_size=32) == steps


def test_times_are_seconds() -> None:
    assert [seconds(WALL_TIME.validate_python(text)) for text in ("9 min", "30 s", "1.5 hours")] == [540, 30, 5400]


@pytest.mark.parametrize(
    "value", ["13", "13 epoch s", "epochs", "-1 steps", "0 steps", "1e99 steps", "1.2.3 steps", 13, None]
)
def test_anything_else_is_refused_with_an_example(value: object) -> None:
    with pytest.raises(ValidationError, match="such as 13 epochs"):
        DURATION.validate_python(value)


@pytest.mark.parametrize("value", ["9", "9 fortnights", "0 min", 9])
def test_times_without_a_unit_are_refused(value: object) -> None:
    with pytest.raises(ValidationError, match="such as 9 min"):
        WALL_TIME.validate_python(value)
