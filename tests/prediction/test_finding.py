"""Which files are images, and that results have unique names."""

from pathlib import Path

import pytest
from PIL import Image

from prediction.finding import find_images, output_names
from utils.errors import UserError
from utils.paths import safe_name


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A tree of images, with other files among them."""
    for name in ("b/x.png", "a/x.png", "a/y.JPG", "a/deep/z.tif", "out/old/panel.png", "a/.hidden.png", ".cache/x.png"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (4, 4)).save(path)
    (tmp_path / "a" / "notes.txt").write_text("no image")
    (tmp_path / "out" / "old" / "areas.json").write_text("{}")
    (tmp_path / "a" / "IM0001").write_bytes(bytes(128) + b"DICM")
    (tmp_path / "none").mkdir()
    return tmp_path


OUT = Path("elsewhere")


def found(pictures: Path, *arguments: str) -> list[str]:
    images, _ = find_images([str(pictures / argument) if argument else str(pictures) for argument in arguments], OUT)
    return [str(path.relative_to(pictures)) for path in images]


def test_folders_are_searched_recursively_without_results_and_hidden_files(pictures: Path) -> None:
    assert found(pictures, "") == ["a/IM0001", "a/deep/z.tif", "a/x.png", "a/y.JPG", "b/x.png"]


def test_other_files_in_folders_are_named(pictures: Path) -> None:
    assert find_images([str(pictures)], OUT).others == [pictures / "a" / "notes.txt"]


@pytest.mark.parametrize("out", ["", "..", "a/results"])
def test_results_are_no_images_wherever_they_are_but_images_beside_them_are(pictures: Path, out: str) -> None:
    for name in ("a/results/unfinished/samples/01.png", "a/results/x/panel.png", "a/results/x/samples/01.png"):
        (pictures / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (4, 4)).save(pictures / name)
    (pictures / "a" / "results" / "x" / "areas.json").write_text("{}")
    names = {path.relative_to(pictures).as_posix() for path in find_images([str(pictures)], pictures / out).images}
    unfinished = set() if out == "a/results" else {"a/results/unfinished/samples/01.png"}
    assert names == {"a/IM0001", "a/deep/z.tif", "a/x.png", "a/y.JPG", "b/x.png"} | unfinished


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
    with pytest.raises(UserError, match="is not a path; the current folder is called"):
        find_images([""], OUT)


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
        (["a/...png"], [safe_name("..")]),
        (["a/\udce9.png", "b/\x1b[2J.png"], [safe_name("\udce9"), safe_name("\x1b[2J")]),
    ],
)
def test_results_have_unique_names(files: list[str], names: list[str]) -> None:
    assert output_names([Path(file) for file in files], reserved=["summary.csv"]) == names
