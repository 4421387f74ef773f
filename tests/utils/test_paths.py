"""Paths as users write them, and files that are whole or not there."""

import tempfile
from pathlib import Path

import pytest

from utils.errors import UserError
from utils.paths import expand_path, write_atomically


def test_home_and_variables_are_expanded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    monkeypatch.setenv("DATA_HERE", "/data")
    assert expand_path("~/a") == Path("/home/someone/a")
    assert expand_path("${DATA_HERE}/b") == expand_path("$DATA_HERE/b") == Path("/data/b")
    assert expand_path(Path("plain/c")) == Path("plain/c")


def test_variable_that_is_not_set_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DATA_THERE", raising=False)
    with pytest.raises(UserError, match=r"\$\{DATA_THERE\}/b.*not set"):
        expand_path("${DATA_THERE}/b")


def test_temporary_folder_is_known_even_where_its_variable_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TMPDIR", raising=False)
    assert expand_path("${TMPDIR}/x") == Path(tempfile.gettempdir()) / "x"
    monkeypatch.setenv("TMPDIR", "/elsewhere")
    assert expand_path("${TMPDIR}/x") == Path("/elsewhere/x")


def test_file_is_written_with_its_folders_and_replaced(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "file.txt"
    for text in ("first", "second"):
        write_atomically(path, lambda temporary, text=text: temporary.write_text(text))
        assert path.read_text() == text
    assert [entry.name for entry in path.parent.iterdir()] == ["file.txt"]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt(), ValueError("no")])
def test_interrupted_writing_leaves_the_old_file_and_no_other(tmp_path: Path, error: BaseException) -> None:
    path = tmp_path / "file.txt"
    path.write_text("old")

    def write(temporary: Path) -> None:
        temporary.write_text("ha")
        raise error

    with pytest.raises(UserError if isinstance(error, OSError) else type(error)):
        write_atomically(path, write)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_full_disk_is_a_user_error_that_names_the_file(tmp_path: Path) -> None:
    def write(temporary: Path) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(UserError, match=r"file\.txt cannot be written: No space left on device"):
        write_atomically(tmp_path / "file.txt", write)


def test_path_below_a_regular_file_is_a_user_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match="cannot be written"):
        write_atomically(tmp_path / "file" / "below.txt", lambda temporary: temporary.write_text("x"))
    assert (tmp_path / "file").read_text() == "in the way"
