"""A user's mistake ends a script with its message and status 2; anything else stays an exception."""

import sys
from collections.abc import Sequence

import pytest

from utils.errors import EXIT_USER_ERROR, UserError, run_script


def test_user_error_is_printed_and_sets_the_exit_status(capsys: pytest.CaptureFixture[str]) -> None:
    def main(argv: Sequence[str]) -> None:
        raise UserError("there is no such thing")

    with pytest.raises(SystemExit) as ending:
        run_script(main, None)
    out, err = capsys.readouterr()
    assert ending.value.code == EXIT_USER_ERROR == 2
    assert (out, err) == ("", "error: there is no such thing\n")


def test_other_exceptions_are_not_hidden() -> None:
    def main(argv: Sequence[str]) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run_script(main, None)


def test_script_receives_its_arguments_and_returns(monkeypatch: pytest.MonkeyPatch) -> None:
    received: list[str] = []
    monkeypatch.setattr(sys, "argv", ["script.py", "params.yml", "seed=1"])
    run_script(received.extend, None)
    assert received == ["params.yml", "seed=1"]


def test_help_prints_the_manual_and_runs_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    received: list[str] = []
    monkeypatch.setattr(sys, "argv", ["script.py", "--help"])
    run_script(received.extend, "how to use it")
    assert (received, capsys.readouterr().out) == ([], "how to use it\n")
