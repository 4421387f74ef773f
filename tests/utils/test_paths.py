"""Paths are expanded, and files are written atomically."""

import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from utils.errors import UserError
from utils.paths import expand_path, remove_temporary_files, safe_name, write_atomically, write_text


def test_home_and_variables_are_expanded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    monkeypatch.setenv("DATA_HERE", "/data")
    assert expand_path("~/a") == Path("/home/someone/a")
    assert expand_path("${DATA_HERE}/b") == expand_path("$DATA_HERE/b") == Path("/data/b")
    assert expand_path(Path("plain/c")) == Path("plain/c")


def test_variable_that_is_not_set_raises_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DATA_THERE", raising=False)
    with pytest.raises(UserError, match=r"\$\{DATA_THERE\}/b.*not set"):
        expand_path("${DATA_THERE}/b")


def test_temporary_folder_is_known_even_if_its_variable_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TMPDIR", raising=False)
    assert expand_path("${TMPDIR}/x") == Path(tempfile.gettempdir()) / "x"
    monkeypatch.setenv("TMPDIR", "/elsewhere")
    assert expand_path("${TMPDIR}/x") == Path("/elsewhere/x")


@given(st.text(st.characters() | st.sampled_from("./\\~\0\n\ud800\udce9: "), max_size=300))
@settings(database=None, derandomize=True)
def test_safe_name_is_one_component_that_is_not_hidden(name: str) -> None:
    safe = safe_name(name)
    assert Path("folder", safe).resolve().parent == Path("folder").resolve()
    assert safe.isprintable()
    assert not safe.startswith(".")
    assert 0 < len(safe.encode()) <= 160
    assert safe_name(safe) == safe


def test_safe_names_differ_and_ordinary_names_stay() -> None:
    for name in ("frankfurt_000000_000294", "1.2.840.5", "scan (1)", "Läsion"):
        assert safe_name(name) == name
    names = ["a/b", "a\\b", "a_b", "../a_b", "..", ".", "", "a" * 200, "a" * 201, "\ud800", "\ud801"]
    assert len({safe_name(name) for name in names}) == len(names)


def test_file_is_written_with_its_folders_and_replaced(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "file.txt"
    for text in ("first", "second"):
        write_text(path, text)
        assert path.read_text() == text
    assert [entry.name for entry in path.parent.iterdir()] == ["file.txt"]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt(), ValueError("no")])
def test_interrupted_write_leaves_the_old_file_and_no_other(tmp_path: Path, error: BaseException) -> None:
    path = tmp_path / "file.txt"
    path.write_text("old")

    def write(temporary: Path) -> None:
        temporary.write_text("ha")
        raise error

    with pytest.raises(UserError if isinstance(error, OSError) else type(error), match=r"No space left|^no$|^$"):
        write_atomically(path, write)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_writers_with_the_same_process_number_do_not_mix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getpid", lambda: 7)  # as in two containers that share a folder
    path = tmp_path / "file.txt"

    def write_while_another_writes(temporary: Path) -> None:
        temporary.write_text("first")
        write_text(path, "second")
        assert temporary.read_text() == "first"

    write_atomically(path, write_while_another_writes)
    assert path.read_text() == "first"


def test_only_temporary_files_of_ours_are_removed(tmp_path: Path) -> None:
    names = [".editor.123.tmp", "notes.tmp"]
    write_atomically(tmp_path / "last.pt", lambda temporary: names.append(temporary.name) or temporary.touch())
    for name in names:
        (tmp_path / name).write_text("half")
    remove_temporary_files(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"last.pt", ".editor.123.tmp", "notes.tmp"}


def test_path_below_a_regular_file_is_a_user_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match=r"below\.txt cannot be written"):
        write_text(tmp_path / "file" / "below.txt", "x")
    assert (tmp_path / "file").read_text() == "in the way"


@pytest.mark.parametrize("text", ["", "\0", "folder/\0/x"])
def test_text_that_is_no_path_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="is not a path"):
        expand_path(text)
