"""Reading pickles of data without running what else may be in them."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np

from utils.errors import UserError


def load_arrays(path: Path) -> Any:
    """What a pickle of numpy arrays, numbers, text and plain containers holds.

    Raises:
        UserError: for a file that is missing, damaged, or wants to import anything else.
    """
    try:
        with open(path, "rb") as file:
            return _ArraysOnly(file).load()
    except _Refused as refused:
        raise UserError(
            f"{path} wants to import {refused}; expected numpy arrays and plain containers and nothing else"
        ) from refused
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from error
    except Exception as error:  # a damaged pickle can raise anything
        raise UserError(f"{path} is not a pickle, or it is damaged or cut off: {error}") from error


class _Refused(Exception):
    """The name of what was to be imported."""


class _ArraysOnly(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        """The constructors of arrays, which numpy 1 and 2 keep in different modules, and what old protocols name."""
        found = _ADMITTED.get((module.replace("numpy._core.", "numpy.core."), name))
        if found is None:
            raise _Refused(f"{module}.{name}")
        return found


def _latin1(text: str, encoding: str) -> bytes:
    """How old protocols write bytes: as text."""
    if encoding != "latin1":
        raise _Refused(f"_codecs.encode with {encoding}")
    return text.encode(encoding)


_ADMITTED: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("numpy.core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
    ("numpy.core.multiarray", "scalar"): np.float64(0).__reduce__()[0],
    ("numpy.core.numeric", "_frombuffer"): np.empty(1).__reduce_ex__(5)[0],
    ("_codecs", "encode"): _latin1,
    ("builtins", "set"): set,
    ("__builtin__", "set"): set,
    ("__builtin__", "bytes"): bytes,
}
