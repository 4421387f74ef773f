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


def test_damaged_and_missing_files_are_refused(tmp_path: Path) -> None:
    path = write_pickle(tmp_path / "data.pickle", pickle_entries())
    whole = path.read_bytes()
    for contents in (b"", b"images: none", whole[:100], whole[: len(whole) // 2]):
        path.write_bytes(contents)
        with pytest.raises(UserError, match=f"{path} cannot be read; it may be damaged"):
            load_arrays(path)
    with pytest.raises(UserError, match="cannot be read: No such file"):
        load_arrays(tmp_path / "nowhere.pickle")
