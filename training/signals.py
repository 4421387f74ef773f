"""A run that is told to make room: it finishes its step, saves, and ends with a status that says so."""

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from types import FrameType

from utils.distributed import any_rank, started_by_torchrun

EXIT_PREEMPTED = 75
"""The status of a run that was stopped by a signal and has saved: "try again later", as in sysexits.h."""

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
ECHO_SECONDS = 5.0
"""A signal that comes again within this time is the same one, passed on by several: torchrun, SLURM, the terminal."""


class StopRequestedError(Exception):
    """Raised between steps, in all processes alike, once one of them was told to stop."""


class StopRequest:
    """Whether one of `SIGNALS` has come. Another one after `ECHO_SECONDS` ends the process at once."""

    def __init__(self) -> None:
        self.name: str | None = None
        self._since = 0.0

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Take the signals in the place of whoever took them before."""
        before = {number: signal.signal(number, self._note) for number in SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def check(self) -> None:
        """Raise `StopRequestedError` where any process was told to stop; all processes call this together."""
        if any_rank(self.name is not None):
            raise StopRequestedError

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.name is None:
            self.name, self._since = signal.Signals(number).name, time.monotonic()
        elif time.monotonic() - self._since > ECHO_SECONDS:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)


def preempted_status() -> int:
    """The exit status of a run that has saved on request; 0 for torchrun, which starts anew whatever failed."""
    return 0 if started_by_torchrun() else EXIT_PREEMPTED
