"""TensorBoard's files of a run."""

import contextlib
import threading
from pathlib import Path
from typing import Any

from tensorboard.backend.event_processing.event_accumulator import (  # type: ignore[import-untyped]
    SCALARS,
    EventAccumulator,
)
from torch.utils.tensorboard import SummaryWriter

from utils.distributed import is_main


class TensorBoard:
    """Curves, figures and texts over the steps; only rank 0 writes."""

    def __init__(self, folder: Path) -> None:
        self._writer = SummaryWriter(str(folder)) if is_main() else None

    def __enter__(self) -> "TensorBoard":
        self._hook, threading.excepthook = threading.excepthook, _ignore_os_errors
        return self

    def __exit__(self, *_: object) -> None:
        if self._writer is not None:
            with contextlib.suppress(OSError):  # after a full disk, closing fails as well
                self._writer.close()
        threading.excepthook = self._hook

    def add_scalars(self, values: dict[str, float], step: int) -> None:
        """One point of each curve."""
        if self._writer is not None:
            for name, value in values.items():
                self._writer.add_scalar(name, value, step)

    def add_figure(self, name: str, figure: Any, step: int) -> None:
        """A matplotlib figure, which is closed."""
        if self._writer is not None:
            self._writer.add_figure(name, figure, step)

    def add_text(self, name: str, text: str) -> None:
        """A text in Markdown."""
        if self._writer is not None:
            self._writer.add_text(name, text)


def _ignore_os_errors(arguments: threading.ExceptHookArgs) -> None:
    """TensorBoard writes in a thread; an error there is raised again where the next point is added."""
    if not isinstance(arguments.exc_value, OSError):
        threading.__excepthook__(arguments)


def read_scalars(folder: Path, name: str) -> list[tuple[int, float]]:
    """The points of a curve in a run's files: (step, value); none if there is no such curve."""
    events = EventAccumulator(str(folder), size_guidance={SCALARS: 0}).Reload()
    return [(event.step, event.value) for event in events.Scalars(name)] if name in events.Tags()[SCALARS] else []
