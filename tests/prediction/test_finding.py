"""Which files are images, and that results have unique names."""

from pathlib import Path

import pytest
from PIL import Image

from prediction.finding import find_images, output_names
from utils.errors import UserError


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A tree of images, with other files among them."""
    for name in ("b/x.png", "a/x.png", "a/y.JPG", "a/deep/z.tif", "out/old/panel.png", "a/.hidden.png", ".cache/x.png"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (4, 4)).save(path)
    (tmp_path / "a" / "notes.txt").write_text("no image")
    (tmp_path / "a" / "IM0001").write_bytes(bytes(128) + b"DICM")
    (tmp_path / "none").mkdir()
    return tmp_path


def found(pictures: Path, *arguments: str) -> list[str]:
    paths = find_images([str(pictures / argument) for argument in arguments], pictures / "out")
    return [str(path.relative_to(pictures)) for path in paths]


def test_folders_are_searched_recursively_without_results_and_hidden_files(pictures: Path) -> None:
    assert found(pictures, "") == ["a/IM0001", "a/deep/z.tif", "a/x.png", "a/y.JPG", "b/x.png"]


def test_patterns_and_files_keep_their_order_without_duplicates(pictures: Path) -> None:
    assert found(pictures, "b/x.png", "*/x.png", "a/notes.txt") == ["b/x.png", "a/x.png", "a/notes.txt"]
    assert found(pictures, "**/*.tif") == ["a/deep/z.tif"]


@pytest.mark.parametrize(
    ("argument", "message"),
    [("none", "no image in"), ("*.bmp", "no image in"), ("x.png", "there is no file"), ("out", "no image in")],
)
def test_arguments_without_images_raise_an_error(pictures: Path, argument: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        found(pictures, "a", argument)


@pytest.mark.parametrize(
    ("files", "names"),
    [
        (["a/x.png", "a/y.png"], ["x", "y"]),
        (["a/x.png", "b/x.png", "c/z.png"], ["a_x", "b_x", "z"]),
        (["a/x.png", "a/x.jpg"], ["a_x_png", "a_x_jpg"]),
        (["a/X.png", "b/x.png"], ["a_X", "b_x"]),
        (["p/a/x.png", "q/a/x.png"], ["a_x_png", "a_x_png_2"]),
        (["a/x.png", "b/x.png", "c/a_x.png"], ["a_x_png", "b_x", "c_a_x"]),
        (["a/1.2.840.5", "a/1.2.840.6"], ["1.2.840.5", "1.2.840.6"]),
        (["a/summary.csv.png"], ["a_summary.csv"]),
    ],
)
def test_results_have_unique_names(files: list[str], names: list[str]) -> None:
    assert output_names([Path(file) for file in files], reserved=["summary.csv"]) == names
