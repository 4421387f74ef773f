"""The one exception that stands for a user's mistake, and the wrapper that turns it into a message and a status."""

import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence

EXIT_USER_ERROR = 2


class UserError(ValueError):
    """Something the user can mend: the message says what was wrong, where, and what would have worked."""


@contextlib.contextmanager
def system_errors_told(what: object) -> Iterator[None]:
    """Say what the operating system did not do, such as write to a full disk, and to `what`, as a `UserError`."""
    try:
        yield
    except OSError as error:
        raise UserError(f"{what}: {error}") from error


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
