"""Own images and label maps as files: read by their values, checked against each other, cropped or padded."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import ddpm_eval
import ddpm_train
from datasets import load_dataset
from datasets.folder import get_dataset
from datasets.loading import evaluation_batches
from tests import tiny
from utils.errors import UserError

rng = np.random.default_rng(0)


def save(path: Path, values: Any, **options: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npy":
        np.save(path, values)
    else:
        (values if isinstance(values, Image.Image) else Image.fromarray(values)).save(path, **options)


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """Four images of 8 x 8 in every split, with two or three raters of two classes."""
    for split in ("train", "val", "test"):
        for number in range(4):
            save(tmp_path / "mine" / split / "images" / f"{number}.png", rng.integers(256, size=(8, 8), dtype=np.uint8))
            for rater in "abc"[: 2 + number % 2]:
                map_ = rng.integers(2, size=(8, 8), dtype=np.uint8)
                save(tmp_path / "mine" / split / "labels" / str(number) / f"{rater}.png", map_)
    return tmp_path / "mine"


def values(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture)


def test_images_and_the_label_maps_of_all_raters_are_read(mine: Path) -> None:
    data = load_dataset("datasets.folder", "train", {"path": str(mine)})
    assert (len(data), data.num_classes, data.image_channels) == (4, 2, 1)
    item = data[1]
    assert item["name"] == "train/1"
    image = values(mine / "train" / "images" / "1.png")
    assert torch.allclose(item["image"][0], torch.from_numpy(image / 127.5 - 1).float(), atol=1e-6)
    expected = np.stack([values(mine / "train" / "labels" / "1" / f"{rater}.png") for rater in "abc"])
    assert np.array_equal(item["labels"], expected)
    (batch,) = evaluation_batches(data, [0, 1], 2, workers=0)
    assert batch.present.tolist() == [[True, True, False], [True, True, True]]


def test_palettes_arrays_and_named_values_become_classes(tmp_path: Path) -> None:
    picture = Image.fromarray(np.array([[0, 2], [1, 2]], dtype=np.uint8))
    picture.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    save(tmp_path / "val" / "labels" / "x.png", picture)
    save(tmp_path / "val" / "labels" / "y.npy", np.array([[0.0, 1.0], [2.0, 0.0]]))
    for name in "xy":
        save(tmp_path / "val" / "images" / f"{name}.npy", rng.random((2, 2, 3)))
    data = get_dataset("val", str(tmp_path), class_names=["a", "b", "c"])
    assert (data.num_classes, data.image_channels, data.class_names) == (3, 3, ["a", "b", "c"])
    assert data[0]["labels"].tolist() == [[[0, 2], [1, 2]]]
    assert data[1]["labels"].tolist() == [[[0, 1], [2, 0]]]
    save(tmp_path / "val" / "labels" / "x.png", np.array([[0, 255], [255, 0]], dtype=np.uint8))
    save(tmp_path / "val" / "labels" / "y.npy", np.array([[255, 0], [0, 0]]))
    with pytest.raises(UserError, match=r"hold 0, 255; .*label_values=\[0, 255\]"):
        get_dataset("val", str(tmp_path))
    assert get_dataset("val", str(tmp_path), label_values=[0, 255])[0]["labels"].tolist() == [[[0, 1], [1, 0]]]


def test_window_scales_all_images_alike(tmp_path: Path) -> None:
    save(tmp_path / "val" / "images" / "x.npy", np.array([[-1000, 400], [-300, 2000]]))
    save(tmp_path / "val" / "labels" / "x.png", np.zeros((2, 2), np.uint8))
    assert get_dataset("val", str(tmp_path), window=[-1000, 400])[0]["image"].tolist() == [[[-1, 1], [0, 1]]]


def test_images_of_different_sizes_are_cropped_or_padded_to_one(mine: Path) -> None:
    for folder in ("images/4", "labels/4"):
        save(mine / "train" / f"{folder}.png", np.ones((5, 12), np.uint8))
    with pytest.raises(UserError, match=r"is \(8, 8\), but .*4\.png \(5, 12\); set dataset_params\.size"):
        get_dataset("train", str(mine))
    item = get_dataset("train", str(mine), size=[7, 10])[4]
    assert (item["image"].shape, item["labels"].shape) == ((1, 7, 10), (1, 7, 10))
    assert item["labels"][0].sum(0).tolist() == [5] * 10
    assert item["labels"][0, :, 0].tolist() == [0, 1, 1, 1, 1, 1, 0]
    assert item["image"][0, 0].tolist() == [-1] * 10


@pytest.mark.parametrize(
    ("path", "content", "said"),
    [
        ("labels/0/b.png", np.zeros((8, 7), np.uint8), r"b\.png is \(8, 7\), its image \(8, 8\)"),
        ("labels/0/c.jpg", np.zeros((8, 8), np.uint8), r"c\.jpg: the compression of \.jpg changes the classes"),
        (
            "labels/0/c.png",
            np.zeros((8, 8, 3), np.uint8),
            r"has shape \(8, 8, 3\); expected .* one channel",
        ),
        ("labels/0/c.npy", np.full((8, 8), 0.5), "values that are not whole numbers"),
        ("labels/9.png", np.zeros((8, 8), np.uint8), r"9\.png has no image; expected .*images/9\.png"),
        ("images/9.png", np.zeros((8, 8), np.uint8), r"9\.png has no label map; expected .*labels/9\.png, or"),
        ("labels/0.png", np.zeros((8, 8), np.uint8), "has both the label map"),
        ("images/0.tif", np.zeros((8, 8), np.uint8), "have the same name"),
        ("images/0.png", np.zeros((8, 8, 3), np.uint8), r"1\.png has 1 channels, but .*0\.png has 3"),
    ],
)
def test_files_that_do_not_fit_are_named(mine: Path, path: str, content: np.ndarray, said: str) -> None:
    save(mine / "train" / path, content)
    with pytest.raises(UserError, match=said):
        data = get_dataset("train", str(mine))
        [data[index] for index in range(len(data))]


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({"size": [8]}, "size is"), ({"size": 8}, "size is 8"), ({"window": [1, 0]}, "LOW and HIGH"),
        ({"label_values": [0]}, "2 to 256 values"), ({"label_values": [0, 9]}, "the values of the classes, 0, 9"),
        ({"class_names": ["a"]}, "1 names for 2 classes"), ({"path": "nowhere"}, "no folder nowhere/train"),
    ],
)  # fmt: skip
def test_impossible_parameters_are_refused(mine: Path, params: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        load_dataset("datasets.folder", "train", {"path": str(mine), **params})[0]


def test_own_files_are_trained_on_and_evaluated(mine: Path, tmp_path: Path) -> None:
    data = [f"dataset_params.path={mine}", "dataset_file=datasets.folder"]
    ddpm_train.main(tiny.train_argv(None, tmp_path / "run", *data, "mp_loaders=1", "cache=null"))
    ddpm_eval.main(tiny.eval_argv(tmp_path / "run" / "last.pt", tmp_path / "results"))
    assert (tmp_path / "results" / "report.html").is_file()
