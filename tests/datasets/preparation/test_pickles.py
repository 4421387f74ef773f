"""Pickles of arrays are read whichever version wrote them, and nothing in them is executed."""

import os
import pickle
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from datasets.preparation.pickles import load_arrays
from tests.datasets.trees import pickle_entries, write_pickle
from utils.errors import UserError


@pytest.mark.parametrize("protocol", range(6))
def test_arrays_numbers_text_and_containers_come_back(tmp_path: Path, protocol: int) -> None:
    contents = {
        **pickle_entries(2, 2),
        "more": [np.float32(1.5), np.arange(4)[::2], np.asfortranarray(np.eye(3)), (1, 2.5, None, True, b"x"), {"a"}],
        "strange": [np.zeros((0, 3)), np.array(["a", "bc"]), np.array(3), np.int64(4)],
    }
    loaded = load_arrays(write_pickle(tmp_path / "data.pickle", contents, protocol))
    np.testing.assert_equal(loaded, contents)


@pytest.mark.parametrize("module", [b"numpy.core.multiarray", b"numpy._core.multiarray"])
def test_arrays_of_both_generations_of_numpy_come_back(tmp_path: Path, module: bytes) -> None:
    array = np.arange(6.0).reshape(2, 3)
    text = pickle.dumps({"x": array}, protocol=2).replace(b"numpy._core.multiarray", module)
    (tmp_path / "data.pickle").write_bytes(text)
    assert np.array_equal(load_arrays(tmp_path / "data.pickle")["x"], array)


PYTHON_2 = (
    b"}q\x00(U\x05imageq\x01cnumpy.core.multiarray\n_reconstruct\nq\x02cnumpy\nndarray\nq\x03K\x00\x85U\x01b\x87Rq\x04"
    b"(K\x01K\x02\x85cnumpy\ndtype\nU\x02f8K\x00K\x01\x87R(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89"
    b"U\x10\x00\x00\x00\x00\x00\x00\xf0?\x9a\x99\x99\x99\x99\x99\xf1?tb"
    b"U\x0aseries_uidccopy_reg\n_reconstructor\n(cdicom.UID\nUID\nc__builtin__\nstr\nU\x051.2.3tRu."
)
"""The opcodes that Python 2 writes for an array [1, 1.1] and a text of a class of its own: byte strings (U)."""


def test_pickles_of_python_2_are_read(tmp_path: Path) -> None:
    (tmp_path / "data.pickle").write_bytes(b"\x80\x02" + PYTHON_2)
    loaded = load_arrays(tmp_path / "data.pickle")
    assert loaded["image"].tolist() == [1.0, 1.1]
    assert loaded["series_uid"] == "1.2.3"


@pytest.mark.parametrize("protocol", range(6))
def test_identifiers_of_dicom_become_text(tmp_path: Path, protocol: int) -> None:
    uid = pytest.importorskip("pydicom", reason="pydicom is not installed").uid.UID("1.2.3")
    assert load_arrays(write_pickle(tmp_path / "data.pickle", {"series_uid": uid}, protocol)) == {"series_uid": "1.2.3"}


class Runs:
    """An object whose unpickling calls a function."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize(
    ("function", "arguments", "named"),
    [
        (os.system, ("touch {}",), "system"),
        (eval, ("open('{}', 'w')",), "eval"),
        (getattr, ("{}", "upper"), "getattr"),
        (subprocess.getoutput, ("touch {}",), "getoutput"),
        (np.fromfile, ("{}",), "numpy"),
        (Path, ("{}",), "pathlib"),
    ],
)
@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_anything_else_is_refused_and_not_run(
    tmp_path: Path, function: Any, arguments: tuple[str, ...], named: str, protocol: int
) -> None:
    trace = tmp_path / "trace"
    runs = Runs(function, *(argument.format(trace) for argument in arguments))
    path = write_pickle(tmp_path / "data.pickle", {"a": {"image": runs}}, protocol)
    with pytest.raises(UserError, match=f"{path} imports .*{named}.*; expected only numpy arrays"):
        load_arrays(path)
    assert not trace.exists()


def test_objects_inside_of_arrays_are_refused_too(tmp_path: Path) -> None:
    array = np.array([Runs(os.system, f"touch {tmp_path / 'trace'}")], dtype=object)
    with pytest.raises(UserError, match="imports"):
        load_arrays(write_pickle(tmp_path / "data.pickle", array))
    assert not (tmp_path / "trace").exists()


class Layout:
    """A NumPy type whose only field is said to hold a reference to an object."""

    def __reduce__(self) -> Any:
        return np.dtype, ("V8", False, True), (3, "|", None, ("a",), {"a": (np.dtype("O"), 0)}, 8, 1, 0)


class Forged:
    """An array of one such reference, to an address of the file's choice."""

    def __reduce__(self) -> Any:
        return np.empty(0).__reduce__()[0], (np.ndarray, (0,), b"b"), (1, (1,), Layout(), False, b"A" * 8)


def test_bytes_of_an_array_never_become_addresses(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"imports numpy\.dtype V8"):
        load_arrays(write_pickle(tmp_path / "data.pickle", [Forged()]))


def test_number_that_a_file_gives_an_object_reserves_no_memory(tmp_path: Path) -> None:
    (tmp_path / "data.pickle").write_bytes(b"\x80\x02Nr\xff\xff\xff\xff.")
    assert load_arrays(tmp_path / "data.pickle") is None


def test_damaged_and_missing_files_are_refused(tmp_path: Path) -> None:
    path = write_pickle(tmp_path / "data.pickle", pickle_entries())
    whole = path.read_bytes()
    for contents in (
        b"",
        b"text: none",
        b"\x80\x02cnumpy.core.multiarray\nscalar\nNa.",
        whole[:100],
        whole[: len(whole) // 2],
    ):
        path.write_bytes(contents)
        with pytest.raises(UserError, match=f"{path} cannot be read; it may be damaged"):
            load_arrays(path)
    with pytest.raises(UserError, match="cannot be read: No such file"):
        load_arrays(tmp_path / "nowhere.pickle")
