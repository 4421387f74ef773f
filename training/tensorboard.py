"""TensorBoard's files of a run."""

import contextlib
import threading
from pathlib import Path
from typing import Any

from torch.utils.tensorboard import SummaryWriter

from utils.distributed import is_main


class TensorBoard:
    """Curves, pictures and texts over the steps, written by process 0; the others' are not kept."""

    def __init__(self, folder: Path) -> None:
        self._writer = SummaryWriter(str(folder)) if is_main() else None

    def __enter__(self) -> "TensorBoard":
        self._hook, threading.excepthook = threading.excepthook, _ignore_system_errors
        return self

    def __exit__(self, *_: object) -> None:
        if self._writer is not None:
            with contextlib.suppress(OSError):  # after a full disk, closing fails as well
                self._writer.close()
        threading.excepthook = self._hook

    def add_scalar(self, name: str, value: float, step: int) -> None:
        """One point of a curve."""
        if self._writer is not None:
            self._writer.add_scalar(name, value, step)

    def add_figure(self, name: str, figure: Any, step: int) -> None:
        """A picture; the figure is closed."""
        if self._writer is not None:
            self._writer.add_figure(name, figure, step)

    def add_text(self, name: str, text: str) -> None:
        """A text in Markdown."""
        if self._writer is not None:
            self._writer.add_text(name, text)


def _ignore_system_errors(arguments: threading.ExceptHookArgs) -> None:
    """TensorBoard writes in a thread and raises the thread's errors again where the next point is added."""
    if not isinstance(arguments.exc_value, OSError):
        threading.__excepthook__(arguments)
