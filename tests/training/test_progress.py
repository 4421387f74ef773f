"""The log line: throughput and times by a clock that the test moves."""

from pathlib import Path

import pytest

from training.progress import Progress, duration
from training.tensorboard import TensorBoard


@pytest.fixture
def board(tmp_path: Path) -> TensorBoard:
    return TensorBoard(tmp_path)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time in seconds, as the only item of a list."""
    now = [50.0]
    monkeypatch.setattr("training.progress.time.monotonic", lambda: now[0])
    return now


def test_line_shows_loss_rate_throughput_and_times(board: TensorBoard, clock: list[float]) -> None:
    progress = Progress(board, 10, 110, batch_size=8)
    clock[0] += 20
    assert progress.line(30, 1.23456, 3e-4) == (
        "step 30/110  loss 1.235  lr 0.0003  8.0 images/s  elapsed 0:00:20  remaining 0:01:20"
    )
    clock[0] += 5
    assert "32.0 images/s  elapsed 0:00:25  remaining 0:00:38" in progress.line(50, 1.0, 1e-4)


def test_throughput_leaves_out_a_validation_and_the_remaining_time_does_not(
    board: TensorBoard, clock: list[float]
) -> None:
    progress = Progress(board, 0, 40, batch_size=1)
    clock[0] += 10
    progress.line(10, 1.0, 1.0)
    clock[0] += 100
    progress.restart(10)
    clock[0] += 10
    assert "1.0 images/s  elapsed 0:02:00  remaining 0:02:00" in progress.line(20, 1.0, 1.0)


def test_durations_are_hours_minutes_and_seconds() -> None:
    assert [duration(seconds) for seconds in (0.4, 59.6, 3723, 100 * 3600)] == [
        "0:00:00", "0:01:00", "1:02:03", "100:00:00",
    ]  # fmt: skip
