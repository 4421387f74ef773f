"""Signals that stop a run: after the current step at first, at once when they are repeated later."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests import tiny
from training.signals import EXIT_PREEMPTED, SIGNALS, StopRequest, StopRequestedError, preempted_status

REPEATED = """
import os, signal
from training import signals
signals.ECHO_SECONDS = 0
stop = signals.StopRequest()
with stop.listening():
    os.kill(os.getpid(), signal.SIGUSR1)
    os.kill(os.getpid(), signal.SIGTERM)
print("still here")
"""

ENDING = """
import contextlib, os, signal, sys
from training import signals
stop = signals.StopRequest({stop_after})
with contextlib.suppress(signals.StopRequestedError), stop.listening():
    {first}
    stop.check()
os.kill(os.getpid(), signal.SIGTERM)
os.kill(os.getpid(), signal.SIGUSR1)
sys.exit(signals.preempted_status())
"""


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", SIGNALS)
def test_signal_stops_the_run_at_the_next_check(number: signal.Signals) -> None:
    stop = StopRequest()
    with stop.listening():
        stop.check()
        os.kill(os.getpid(), number)
        assert stop.name == number.name
        with pytest.raises(StopRequestedError):
            stop.check()


def test_echoes_count_as_one() -> None:
    stop = StopRequest()
    with stop.listening():
        for number in (*SIGNALS, *SIGNALS):
            os.kill(os.getpid(), number)
    assert stop.name == SIGNALS[0].name


def test_a_later_signal_ends_the_process_at_once() -> None:
    ended = subprocess.run([sys.executable, "-c", REPEATED], cwd=tiny.ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == -signal.SIGTERM
    assert ended.stdout == ended.stderr == ""


def test_previous_handlers_are_restored() -> None:
    before = [signal.getsignal(number) for number in SIGNALS]
    with StopRequest().listening():
        assert signal.getsignal(signal.SIGTERM) != before[0]
    assert [signal.getsignal(number) for number in SIGNALS] == before


@pytest.mark.parametrize(
    ("stop_after", "first"), [("", "os.kill(os.getpid(), signal.SIGUSR1)"), ("-1", "print('the time is up')")]
)
def test_echoes_after_the_last_checkpoint_do_not_replace_the_exit_status(stop_after: str, first: str) -> None:
    code = ENDING.format(stop_after=stop_after, first=first)
    ended = subprocess.run([sys.executable, "-c", code], cwd=tiny.ROOT, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (EXIT_PREEMPTED, "")


def test_preempted_run_has_a_status_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    assert preempted_status() == EXIT_PREEMPTED == 75
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "some")
    assert preempted_status() == 0


def test_run_stops_when_its_time_is_up() -> None:
    StopRequest(stop_after=1000).check()
    with pytest.raises(StopRequestedError):
        StopRequest(stop_after=-1).check()
