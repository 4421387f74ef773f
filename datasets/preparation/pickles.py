"""Reading pickles of data without executing anything they may contain."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np

from utils.errors import UserError, corrupt_file_as_user_error, os_errors_as_user_error


def load_arrays(path: Path) -> Any:
    """Load a pickle of numpy arrays, numbers, text and plain containers, with a restricted unpickler. Raises UserError
    for a file that is missing, damaged, or imports anything else."""
    with os_errors_as_user_error(path), corrupt_file_as_user_error(path), open(path, "rb") as file:
        try:
            return _ArraysOnly(file, encoding="latin1").load()  # the encoding that NumPy asks for of Python 2
        except _ForbiddenImport as name:
            raise UserError(f"{path} imports {name}; expected only numpy arrays and plain containers") from name
        except AttributeError as error:  # of one of the functions below, which a damaged file uses as something else
            raise pickle.UnpicklingError(str(error)) from error


class _ForbiddenImport(Exception):
    """The argument is the name of what the pickle imports."""


class _ArraysOnly(pickle._Unpickler):  # in C, it reserves memory for any number of objects that a file claims
    def find_class(self, module: str, name: str) -> Any:
        """Numpy's constructors, which numpy 1 and 2 keep in different modules, and names that old protocols use."""
        found = _ALLOWED.get((module.replace("numpy._core.", "numpy.core."), name))
        if found is None:
            raise _ForbiddenImport(f"{module}.{name}")
        return found


def _latin1(text: str, encoding: str) -> bytes:
    """Old protocols write bytes as text."""
    if encoding != "latin1":
        raise _ForbiddenImport(f"_codecs.encode with {encoding}")
    return text.encode(encoding)


_SCALAR: Any = np.float64(0).__reduce__()[0]
_FROM_BUFFER: Any = np.empty(1).__reduce_ex__(5)[0]


class _DType:
    """Takes the place of NumPy's types, which believe any layout that a file describes: one with objects inside would
    make the bytes of an array addresses in memory."""

    def __init__(self, code: str, *_: Any) -> None:
        self.type = np.dtype(str(code))
        if self.type.kind not in "biufSU":
            raise _ForbiddenImport(f"numpy.dtype {code}")

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.type = self.type.newbyteorder(state[1])


class _Array(np.ndarray[Any, Any]):
    """An array whose type is a `_DType`."""

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        version, shape, dtype, is_fortran, data = state
        super().__setstate__((version, shape, dtype.type, is_fortran, data))


def _reconstruct(*_: Any) -> _Array:
    return _Array((0,))


def _scalar(dtype: _DType, data: Any) -> Any:
    return _SCALAR(dtype.type, data)


def _from_buffer(data: Any, dtype: _DType, *layout: Any) -> Any:
    return _FROM_BUFFER(data, dtype.type, *layout)


class _Text(str):
    """Text whose class was one of another package; it may have attributes, which are not used."""


def _text(kind: type, base: type, value: str) -> str:
    """Old protocols rebuild such a text by its base class."""
    if (kind, base) != (_Text, str):
        raise _ForbiddenImport(f"copyreg._reconstructor of {kind.__name__}")
    return _Text(value)


_ALLOWED: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _DType,
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy.core.multiarray", "scalar"): _scalar,
    ("numpy.core.numeric", "_frombuffer"): _from_buffer,
    ("_codecs", "encode"): _latin1,
    ("builtins", "set"): set,
    ("__builtin__", "set"): set,
    ("__builtin__", "bytes"): bytes,
    ("__builtin__", "str"): str,
    ("__builtin__", "unicode"): str,
    ("pydicom.uid", "UID"): _Text,
    ("dicom.UID", "UID"): _Text,
    ("copy_reg", "_reconstructor"): _text,
}
