"""What a dataset holds is counted correctly, printed for all splits, and drawn."""

from pathlib import Path
from typing import Any

import matplotlib.image
import numpy as np
import pytest

from datasets import load_dataset
from evaluation.classes import default_colours
from evaluation.inspect_data import describe, draw, main
from tests import tiny
from tests.datasets.test_folder import write_folder
from tests.datasets.trees import write_png
from tests.evaluation.data import Maps, Scenes
from utils.errors import UserError


def test_counts_and_overlaps_are_those_of_the_label_maps() -> None:
    lines = describe(Maps([[0, 1, 1, 0], [0, 0, 1, 1]], [[0, 0, 0, 0]], groups=[7, 7]))
    assert lines == {
        "images": "2",
        "groups, such as patients": "1",
        "height x width": "1 x 4",
        "channels": "1",
        "intensities": "0.50 .. 0.50",
        "annotators per image": "2 (1), 1 (1)",
        "empty label maps": "33.3 %",
        "pixels of class 0": "66.67 %",
        "pixels of class 1": "33.33 %",
        "IoU of two annotators": "0.333",
        # 2 * 1 - 1/2 * 2/3 for the first image and 0 for the second; the majority of the first is its third pixel
        "GED of an empty map": f"{(2 - 1 / 3) / 2:.3f}",
        "GED of the majority": f"{(2 * 1 / 2 - 1 / 3) / 2:.3f}",
    }


def test_void_is_neither_a_lesion_nor_compared() -> None:
    lines = describe(Maps([[0, 2, 0], [0, 0, 2]], [[0, 1, 0], [0, 1, 0]], num_classes=3, void=2))
    assert (lines["empty label maps"], lines["IoU of two annotators"]) == ("50.0 %", "1.000")
    assert describe(Scenes())["GED of the majority"] == "\N{EN DASH}"
    with pytest.raises(UserError, match="image 0 has no annotations"):
        describe(Maps([[2, 2], [0, 2]], num_classes=3, void=2))


def test_images_of_any_size_and_number_of_annotators_are_drawn(tmp_path: Path) -> None:
    data = Maps([[0, 1, 1, 0]] * 3, [[0, 1]])
    figure = draw({"train": data, "val": data})
    assert len(figure.axes) == 4 * 5
    names = [f"{split}/image {index}" for split in ("train", "val") for index in (0, 1)]
    assert [place.get_ylabel() for place in figure.axes[::5]] == names
    assert describe(data)["height x width"] == "1 x 4 (1), 1 x 2 (1)"
    overlay = np.asarray(figure.axes[1].images[0].get_array())
    assert np.allclose(overlay[0, :2], [[0, 0, 0], [0.5, 0.4, 0]])


def test_void_is_transparent_and_other_classes_are_not() -> None:
    data = Maps([[0, 2, 1, 1], [0, 2, 2, 1]], [[0, 2]], num_classes=3, void=2)
    overlay = np.asarray(draw({"test": data}).axes[1].images[0].get_array())
    first, second = default_colours(3, void=2)[:2] / 255 / 2
    assert np.allclose(overlay[0], [first, [0, 0, 0], second / 2, second])


def test_folder_is_described_from_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_folder(Path("mine"))
    main(["dataset_file=datasets.folder", "dataset_params.path=mine"])
    table, _, ending = capsys.readouterr().out.partition("\n\n")
    assert ending == "pictures in data.png\n"
    lines = {line[:24].strip(): line[24:].split() for line in table.splitlines()}
    assert lines[""] == ["train", "val", "test"]
    assert lines["images"] == ["4"] * 3
    assert lines["pixels of class 2"][2:] == ["0.00", "%"] * 2
    assert matplotlib.image.imread("data.png").shape[2] == 4


def test_splits_that_cannot_be_read_are_reported_after_the_others(tmp_path: Path, capsys: Any) -> None:
    root, out = write_folder(tmp_path / "mine"), tmp_path / "pictures" / "x.png"
    write_png(root / "val" / "images" / "9.png", np.zeros((8, 6)))
    arguments = ["dataset_file=datasets.folder", f"dataset_params.path={root}", f"out={out}"]
    message = tiny.refusal(main, arguments)
    assert "9.png has no label map" in message
    assert capsys.readouterr().out.splitlines()[0].split() == ["train", "test"]
    assert out.is_file()
    main([*arguments, "splits=train"])
    assert "did you mean `splits`" in tiny.refusal(main, [*arguments, "split=train"])
    assert "`dataset_file`" in tiny.refusal(main, [])
    assert tiny.refusal(main, ["dataset_file=datasets.foldr"]).count("there is no module datasets.foldr") == 1
    assert load_dataset("datasets.folder", "train", {"path": str(root)}).num_classes == 3
