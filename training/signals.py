"""Preemption: a run that receives a signal finishes its step, saves, and exits with a status of its own."""

import contextlib
import math
import os
import signal
import time
from collections.abc import Iterator
from types import FrameType

from utils.distributed import any_rank, started_by_torchrun

EXIT_PREEMPTED = 75
"""The status of a run that was stopped by a signal or `stop_after` and has saved: "try again later" in sysexits.h."""

SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGUSR1") if hasattr(signal, name)  # Windows has no USR1
)  # fmt: skip
ECHO_SECONDS = 5.0
"""A second signal within this time is the same request, forwarded by torchrun, SLURM or the terminal."""


class StopRequestedError(Exception):
    """Raised between steps, on all ranks alike, once one of them has received a signal."""


class StopRequest:
    """Whether one of `SIGNALS` was received, or the time is up.

    Another signal after `ECHO_SECONDS` ends the process at once, unless it is ending anyway.

    Args:
        stop_after: seconds from now after which the run is to stop.
    """

    def __init__(self, stop_after: float = math.inf) -> None:
        self._deadline = time.monotonic() + stop_after
        self.name: str | None = None
        self._since, self._stopping = 0.0, False

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Handle the signals. At the end the previous handlers are restored or, if a stop was requested, signals are
        ignored: Python takes seconds to end, and an echo must not replace the exit status."""
        before = {number: signal.signal(number, self._handle) for number in SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, signal.SIG_IGN if self._stopping or self.name is not None else handler)

    def check(self) -> None:
        """Raise `StopRequestedError` if any rank has received a signal, or is out of time; a call of all ranks."""
        self._stopping = any_rank(self.name is not None or time.monotonic() > self._deadline)
        if self._stopping:
            raise StopRequestedError

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.name is None:
            self.name, self._since = signal.Signals(number).name, time.monotonic()
        elif time.monotonic() - self._since > ECHO_SECONDS:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)


def preempted_status() -> int:
    """The exit status of a preempted run; 0 under torchrun, which would restart any other status as a failure."""
    return 0 if started_by_torchrun() else EXIT_PREEMPTED
