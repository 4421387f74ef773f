"""The one exception that stands for a user's mistake, and the wrapper that turns it into a message and a status."""

import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence

EXIT_USER_ERROR = 2


class UserError(ValueError):
    """Something the user can mend: the message says what was wrong, where, and what would have worked."""


@contextlib.contextmanager
def corrupt_file_as_user_error(what: object) -> Iterator[None]:
    """Say that `what` is damaged where reading it fails.

    Raises:
        UserError: in the place of any other exception: what a damaged file raises inside the library can be anything.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{what} cannot be read ({error}); it is damaged") from error


_FULL_MEMORY = "the memory is full; a smaller batch_size, max_batch_size or network needs less"
_SYSTEM_ERRORS = {
    "DataLoader worker": "a process that loads data has ended; was the memory full? mp_loaders says how many there are",
    "out of memory": _FULL_MEMORY,
    "can't allocate memory": _FULL_MEMORY,
}
"""What PyTorch reports as a mere RuntimeError, by a part of its message."""


@contextlib.contextmanager
def os_errors_as_user_error(what: object) -> Iterator[None]:
    """Say as a `UserError` what the machine did not do for `what`, such as write to a full disk."""
    try:
        yield
    except (OSError, MemoryError) as error:
        raise UserError(f"{what}: {error or 'the memory is full'}") from error
    except RuntimeError as error:
        told = [meaning for sign, meaning in _SYSTEM_ERRORS.items() if sign in str(error)]
        if not told:
            raise
        raise UserError(f"{what}: {told[0]}") from error


def run_script(main: Callable[[Sequence[str]], None], manual: str | None) -> None:
    """Run a script's `main(argv)`; a `UserError` ends it with its message on stderr and exit status 2.

    `--help` prints the manual, the script's docstring.
    """
    if {"-h", "--help"} & set(sys.argv[1:]):
        print(manual)
        return
    try:
        main(sys.argv[1:])
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(EXIT_USER_ERROR)
