"""What becomes a `UserError` and its message, and what stays the exception it is."""

import errno
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import h5py
import pytest
import torch

from utils import paths
from utils.errors import EXIT_USER_ERROR, UserError, corrupt_file_as_user_error, os_errors_as_user_error, run_script


def raise_(error: BaseException) -> None:
    raise error


def lack_an_attribute(owner: Any) -> None:
    owner.no_such_thing  # noqa: B018


def test_user_error_is_printed_and_sets_the_exit_status(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ending:
        run_script(lambda argv: raise_(UserError("there is no \x1b[31m\udce9")), None)
    assert ending.value.code == EXIT_USER_ERROR == 2
    assert capsys.readouterr() == ("", "error: there is no \\x1b[31m\\udce9\n")
    with pytest.raises(ZeroDivisionError):
        run_script(lambda argv: raise_(ZeroDivisionError()), None)


def test_data_loading_processes_do_not_outlive_the_script() -> None:
    fork, ignores = multiprocessing.get_context("fork"), multiprocessing.get_context("fork").Event()

    def load() -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        ignores.set()
        time.sleep(60)

    loader = fork.Process(target=load, daemon=True)

    def main(_: Sequence[str]) -> None:
        loader.start()
        assert ignores.wait(30)
        raise UserError("the data cannot be read")

    with pytest.raises(SystemExit):
        run_script(main, None)
    loader.join(timeout=30)
    assert loader.exitcode == -signal.SIGKILL


def test_script_receives_its_arguments_and_help_prints_the_manual(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    received: list[str] = []
    for argv in (["params.yml", "seed=1"], ["seed=2", "--help"]):
        monkeypatch.setattr(sys, "argv", ["script.py", *argv])
        run_script(received.extend, "how to use it")
    assert received == ["params.yml", "seed=1"]
    assert capsys.readouterr().out == "how to use it\n"


DAMAGE: dict[str, Callable[[], object]] = {
    "pickle": lambda: torch.load(__file__, weights_only=True),
    "missing key": lambda: {}["weights"],
    "wrong type": lambda: lack_an_attribute([1, 2]),
    "inside a library": lambda: lack_an_attribute(h5py.h5p.create(h5py.h5p.FILE_ACCESS)),
    "h5py": lambda: h5py.File(__file__, "r"),
    "assertion": lambda: raise_(AssertionError()),
}


@pytest.mark.parametrize("cause", DAMAGE.values(), ids=DAMAGE.keys())
def test_whatever_damaged_contents_raise_is_called_damage(cause: Callable[[], object]) -> None:
    with pytest.raises(UserError, match=r"^x\.pt cannot be read; it may be damaged \(\w+"), \
            corrupt_file_as_user_error("x.pt"):  # fmt: skip
        cause()


NO_DAMAGE: dict[str, Callable[[], object]] = {
    "missing package": lambda: raise_(ModuleNotFoundError("No module named 'timm'", name="timm")),
    "memory": lambda: raise_(MemoryError()),
    "memory of a device": lambda: raise_(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")),
    "dead worker": lambda: raise_(RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed.")),
    "undefined name": lambda: no_such_name,  # type: ignore[name-defined]  # noqa: F821
    "attribute of our object": lambda: lack_an_attribute(UserError()),
    "attribute of our class": lambda: lack_an_attribute(UserError),
    "attribute of our module": lambda: lack_an_attribute(paths),
    "message that is there already": lambda: raise_(UserError("another layout")),
}


@pytest.mark.parametrize("cause", NO_DAMAGE.values(), ids=NO_DAMAGE.keys())
def test_what_no_file_can_cause_is_not_called_damage(cause: Callable[[], object]) -> None:
    with pytest.raises(Exception) as expected:
        cause()
    with pytest.raises(expected.type) as error, corrupt_file_as_user_error("x.pt"):
        cause()
    assert str(error.value) == str(expected.value)


def test_file_that_the_system_refuses_is_not_called_damaged(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^x\.pt cannot be read: Is a directory$"), corrupt_file_as_user_error("x.pt"):
        tmp_path.read_bytes()


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), "No space left on device"),
        (MemoryError(), "out of memory"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), "a smaller batch_size"),
        (RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed."), "a data loading process died"),
        (ModuleNotFoundError("No module named 'timmm.x'", name="timmm.x"), "the package timmm is not installed"),
    ],
)
def test_errors_of_the_machine_name_what_was_being_done(error: Exception, message: str) -> None:
    with pytest.raises(UserError, match=f"^the prediction: .*{message}"), os_errors_as_user_error("the prediction"):
        raise error


@pytest.mark.parametrize(
    "error", [RuntimeError("shapes differ"), KeyError("x"), ModuleNotFoundError("no utils.x", name="utils.x")]
)
def test_errors_of_the_program_pass(error: Exception) -> None:
    with pytest.raises(type(error), match=str(error)), os_errors_as_user_error("the prediction"):
        raise error
