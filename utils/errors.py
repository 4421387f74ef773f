"""`UserError`, the exception for what the user can fix, and context managers that turn other errors into it."""

import contextlib
import multiprocessing
import sys
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path

from utils.text import visible

EXIT_USER_ERROR = 2

_OUR_MODULES = {path.stem for path in Path(__file__).parents[1].iterdir()}
_OUT_OF_MEMORY = "out of memory; a smaller batch_size, max_batch_size or network needs less"
_MACHINE_ERRORS = {
    "DataLoader worker": "a data loading process died, possibly out of memory; mp_loaders sets how many there are",
    "out of memory": _OUT_OF_MEMORY,
    "can't allocate memory": _OUT_OF_MEMORY,
}
"""What PyTorch raises as a RuntimeError, by a part of its message."""


class UserError(ValueError):
    """Something the user can fix: the message says what was wrong, where, and what would have worked."""


@contextlib.contextmanager
def corrupt_file_as_user_error(what: object) -> Iterator[None]:
    """Translate errors that a damaged file causes, which can be of almost any type, depending on the library.

    Errors that no file can cause pass: missing modules and undefined names, a missing attribute of an object of this
    project, a lack of memory, and a `UserError`, which has its message already. Raises UserError that `what` may be
    damaged; for an error of the operating system, such as a missing permission, that `what` cannot be read.
    """
    try:
        yield
    except (UserError, ImportError, NameError, MemoryError):
        raise
    except Exception as error:
        if _machine_error(error) is not None or _lacks_attribute_of_ours(error):
            raise
        if isinstance(error, OSError) and error.strerror:
            raise UserError(f"{what} cannot be read: {error.strerror}") from error
        reason = ": ".join([type(error).__name__, *str(error).strip().splitlines()[:1]])
        raise UserError(f"{what} cannot be read; it may be damaged ({reason})") from error


@contextlib.contextmanager
def os_errors_as_user_error(what: object) -> Iterator[None]:
    """Translate errors of the machine, such as a full disk or a package that is not installed. Raises UserError, naming
    `what`, which is what the script was doing."""
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if not package or package in _OUR_MODULES or find_spec(package) is not None:
            raise
        raise UserError(f"{what}: the package {package} is not installed") from error
    except (OSError, MemoryError, RuntimeError) as error:
        reason = _machine_error(error) or (str(error) if isinstance(error, OSError) else None)
        if reason is None:
            raise
        raise UserError(f"{what}: {reason}") from error


def run_script(main: Callable[[Sequence[str]], None], manual: str | None) -> None:
    """Run a script's `main(argv)`; a `UserError` ends it with its message on stderr and exit status 2.

    `--help` prints the manual, which is the script's docstring. Data loading processes that are left are killed: they
    ignore the signal with which Python would end them, and Python would wait for them for ever.
    """
    if {"-h", "--help"} & set(sys.argv[1:]):
        print(manual)
        return
    try:
        main(sys.argv[1:])
    except UserError as error:
        print(f"error: {visible(str(error))}", file=sys.stderr)
        sys.exit(EXIT_USER_ERROR)
    finally:
        for process in multiprocessing.active_children():
            if process.daemon:
                process.kill()


def _machine_error(error: Exception) -> str | None:
    """The reason, if the machine rather than the program or a file caused the error."""
    if isinstance(error, MemoryError):
        return str(error) or _OUT_OF_MEMORY
    if isinstance(error, RuntimeError):
        return next((reason for sign, reason in _MACHINE_ERRORS.items() if sign in str(error)), None)
    return None


def _lacks_attribute_of_ours(error: Exception) -> bool:
    if not isinstance(error, AttributeError) or error.obj is None:
        return False
    module = getattr(error.obj, "__module__", None) or getattr(error.obj, "__name__", "")
    return str(module).partition(".")[0] in _OUR_MODULES
