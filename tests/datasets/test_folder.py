"""A folder of image files is a dataset without code, and an inconsistent one raises errors that say what to do."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import ddpm_eval
import ddpm_train
from datasets import load_dataset
from datasets.loading import evaluation_batches, evenly_spaced_indices
from evaluation.evaluate import task_of
from tests import tiny
from tests.datasets.test_dicom import write_dicom
from tests.datasets.test_formats import saved
from tests.datasets.trees import write_png
from utils.errors import UserError

SPLITS = ("train", "val", "test")


def write_folder(root: Path, size: tuple[int, int] = (8, 6), num_classes: int = 3, number: int = 4) -> Path:
    """Grey images with two or three annotators each; the last class occurs in the training split only."""
    rng = np.random.default_rng(0)
    for split in SPLITS:
        for image in range(number):
            write_png(root / split / "images" / f"{image}.png", rng.integers(256, size=size))
            for annotator in range(2 + image % 2):
                classes = num_classes if split == "train" else num_classes - 1
                path = root / split / "labels" / str(image) / f"{annotator}.png"
                write_png(path, rng.integers(classes, size=size))
    return root


def opened(root: Path, split: str = "train", **params: Any) -> list[dict[str, Any]]:
    """All items of a split."""
    dataset = load_dataset("datasets.folder", split, {"path": str(root), **params})
    return [dataset[index] for index in range(len(dataset))]


def refusal(root: Path, split: str = "train", **params: Any) -> str:
    with pytest.raises(UserError) as error:
        opened(root, split, **params)
    return str(error.value)


def test_images_have_the_label_maps_of_all_their_annotators(tmp_path: Path) -> None:
    dataset = load_dataset("datasets.folder", "val", {"path": str(write_folder(tmp_path))})
    assert (dataset.num_classes, dataset.image_channels, len(dataset)) == (3, 1, 4)
    (batch,) = evaluation_batches(dataset, [0, 1, 2, 3], 4, workers=0)
    assert batch.names == ["0", "1", "2", "3"]
    assert batch.present.sum(1).tolist() == [2, 3, 2, 3]
    image, labels = (Image.open(tmp_path / "val" / name) for name in ("images/3.png", "labels/3/2.png"))
    assert torch.allclose(batch.images[3, 0], torch.from_numpy(np.asarray(image) / 127.5 - 1).float(), atol=1e-6)
    assert np.array_equal(batch.labels[3, 2], np.asarray(labels))


def test_all_formats_are_read_and_one_annotator_needs_no_folder(tmp_path: Path) -> None:
    ramp = np.arange(48, dtype=np.uint8).reshape(8, 6)
    images, labels = tmp_path / "train" / "images", tmp_path / "train" / "labels"
    images.mkdir(parents=True)
    labels.mkdir()
    saved(images / "a.jpg", ramp)
    saved(images / "b.tiff", ramp.astype(np.uint16) * 256)
    saved(images / "c.npy", ramp.astype(np.float32) - 1000)
    write_dicom(images / "1.2.840.5", ramp.astype(np.uint16))
    classes = Image.fromarray(ramp % 2)
    classes.putpalette([0, 0, 0, 200, 10, 10])
    for name, values in (("a.png", classes), ("b.npy", ramp % 2), ("c.tif", ramp % 2), ("1.2.840.5.bmp", ramp % 2)):
        saved(labels / name, values)
    (images / ".DS_Store").touch()
    items = opened(tmp_path)
    assert [item["name"] for item in items] == ["1.2.840.5", "a", "b", "c"]
    for item in items:
        assert np.array_equal(item["labels"], ramp[None] % 2)
        assert (item["image"].min() < -0.6) and (item["image"].shape == (1, 8, 6))
    assert opened(tmp_path, window=[-1000, -906])[3]["image"].max() == pytest.approx(0)


def test_masks_of_0_and_255_have_two_classes(tmp_path: Path) -> None:
    mask = np.array([[0, 255, 0]])
    write_png(tmp_path / "train/images/x.png", mask)
    write_png(tmp_path / "train/labels/x.png", mask)
    dataset = load_dataset("datasets.folder", "train", {"path": str(tmp_path)})
    assert (dataset.num_classes, list(dataset.class_ids)) == (2, [0, 255])
    assert dataset[0]["labels"].tolist() == [[[0, 1, 0]]]


def test_classes_may_have_any_values_names_and_a_void(tmp_path: Path) -> None:
    write_png(tmp_path / "train/images/x.png", np.zeros((1, 4)))
    write_png(tmp_path / "train/labels/x.png", np.array([[0, 7, 9, 255]]))
    assert "values [0, 7, 9, 255]; expected 0 .. C-1, or 0 and 255" in refusal(tmp_path)
    assert "dataset_params.class_ids=[0, 7, 9, 255]" in refusal(tmp_path)
    params = {"class_ids": [0, 9, 7, 255], "class_names": ["a", "b", "c", "nothing"], "void_class": 3}
    dataset = load_dataset("datasets.folder", "train", {"path": str(tmp_path), **params})
    assert dataset[0]["labels"].tolist() == [[[0, 2, 1, 3]]]
    assert (dataset.num_classes, dataset.class_names, dataset.void_class) == (4, params["class_names"], 3)
    assert "value 255 at (0, 3); expected those of classes: [0, 7, 9]" in refusal(tmp_path, class_ids=[0, 7, 9])
    assert "2 names for 4 classes" in refusal(tmp_path, **{**params, "class_names": ["a", "b"]})
    assert "void_class is 4; expected 0 .. 3" in refusal(tmp_path, **{**params, "void_class": 4})


def test_two_classes_of_which_one_is_void_are_refused(tmp_path: Path) -> None:
    write_folder(tmp_path, num_classes=2)
    message = refusal(tmp_path, class_ids=[0, 1], void_class=1)
    assert message == f"{tmp_path}: one of 2 classes is void, which is not evaluated; expected two others"


def test_single_image_with_two_annotators_makes_a_distribution_wherever_it_is(tmp_path: Path) -> None:
    for number in range(12):
        write_png(tmp_path / f"test/images/{number:02d}.png", np.zeros((2, 2)))
        for annotator in range(1 + (number == 1)):
            write_png(tmp_path / f"test/labels/{number:02d}/{annotator}.png", np.array([[0, 1], [2, annotator]]))
    assert 1 not in evenly_spaced_indices(12, 8)  # the images that would be read to see
    assert task_of(load_dataset("datasets.folder", "test", {"path": str(tmp_path), "void_class": 2})) == "distribution"
    shutil.rmtree(tmp_path / "test/labels/01")
    write_png(tmp_path / "test/labels/01.png", np.zeros((2, 2)))
    assert task_of(load_dataset("datasets.folder", "test", {"path": str(tmp_path), "void_class": 2})) == "segmentation"


def test_images_of_other_sizes_are_cropped_or_padded_around_their_centre(tmp_path: Path) -> None:
    write_folder(tmp_path, size=(8, 6))
    values = np.arange(1, 25, dtype=np.uint8).reshape(4, 6)
    write_png(tmp_path / "val/images/0.png", values)
    for annotator in range(2):
        write_png(tmp_path / f"val/labels/0/{annotator}.png", values % 3)
    assert "dataset_params.size, such as [8, 6]" in refusal(tmp_path)
    assert {tuple(item["image"].shape) for item in opened(tmp_path, size=[6, 4])} == {(1, 6, 4)}
    item = opened(tmp_path, "val", size=[6, 4])[0]
    expected, classes = np.zeros((6, 4)), np.zeros((6, 4))
    expected[1:5], classes[1:5] = values[:, 1:5], values[:, 1:5] % 3
    assert np.allclose(item["image"][0], expected / 127.5 - 1)
    assert np.array_equal(item["labels"], np.stack([classes] * 2))


def test_channels_differ_only_if_they_are_to_be_converted(tmp_path: Path) -> None:
    write_folder(tmp_path)
    write_png(tmp_path / "val/images/2.png", np.full((8, 6, 3), (0, 255, 0)))
    message = refusal(tmp_path, "val")
    assert f"{tmp_path / 'val/images/2.png'} has 3 channels, {tmp_path / 'train/images/0.png'} has 1" in message
    assert "set dataset_params.image_channels to 1 or 3" in message
    assert opened(tmp_path, "val", image_channels=1)[2]["image"][0, 0, 0] == pytest.approx(2 * 0.587 - 1)
    assert opened(tmp_path, "val", image_channels=3)[1]["image"].shape == (3, 8, 6)


def test_subfolders_are_patients_of_one_split(tmp_path: Path) -> None:
    for name in ("p1/a", "p1/b", "p2/a"):
        write_png(tmp_path / f"train/images/{name}.png", np.zeros((4, 4)))
        write_png(tmp_path / f"train/labels/{name}/one.png", np.eye(4))
    items = opened(tmp_path)
    assert [item["name"] for item in items] == ["p1/a", "p1/b", "p2/a"]
    assert items[0]["group"] == items[1]["group"] != items[2]["group"]
    write_png(tmp_path / "test/images/p2/c.png", np.zeros((4, 4)))
    assert "p2 is a folder of images in both train and test" in refusal(tmp_path)


def test_inconsistent_folders_raise_errors(tmp_path: Path) -> None:
    assert "there is no folder" in refusal(tmp_path)
    root = write_folder(tmp_path)
    assert f"there is no folder {root / 'trian' / 'images'}" in refusal(root, "trian")
    broken: list[tuple[str, Any, str]] = [
        ("train/images/9.png", np.zeros((8, 6)), "9.png has no label map"),
        ("train/labels/9/1.png", np.zeros((8, 6)), "1.png has no image"),
        ("train/images/0.jpg", np.zeros((8, 6)), "have the same name"),
        ("val/labels/0/0.jpg", np.zeros((8, 6)), "0.png have the same name"),
        ("val/labels/0/9.jpg", np.zeros((8, 6)), "9.jpg is compressed as JPEG"),
        ("train/labels/0/9.png", np.zeros((8, 5)), "9.png (8, 5); if their images have these sizes"),
        ("train/labels/0/9.png", np.full((8, 6), 77), "values [0, 1, 2, 77]"),
    ]
    for name, values, message in broken:
        path = write_png(root / name, values)
        assert message in refusal(root)
        path.unlink()
        if path.parent.name == "9":
            path.parent.rmdir()
    (root / "train" / "images" / "x.mha").touch()
    assert "x.mha is not an image; expected .png" in refusal(root)
    (root / "train" / "images" / "x.mha").unlink()
    assert len(opened(root)) == 4
    write_png(root / "train/labels/0/9.png", np.zeros((8, 5)))
    assert "9.png is (8, 5), its image" in refusal(root, size=[8, 6])


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"pth": "x"}, "unknown key `pth`; did you mean `path`?"),
        ({"size": [0, 4]}, "`size.0`"),
        ({"size": 128}, "`size`"),
        ({"image_channels": 2**31}, "`image_channels`"),
        ({"window": [4, 4]}, "is not a range"),
        ({"class_ids": [0, 1, 1]}, "holds a value twice"),
        ({"class_ids": [0, 256]}, "`class_ids.1`"),
    ],
)
def test_impossible_parameters_are_refused(tmp_path: Path, params: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match="dataset_params") as error:
        load_dataset("datasets.folder", "train", {"path": str(tmp_path), **params})
    assert message in str(error.value)


def test_folder_is_trained_on_and_evaluated_without_code(tmp_path: Path) -> None:
    write_folder(tmp_path / "mine", size=(8, 8))
    data = ["dataset_file=datasets.folder", f"dataset_params={{path: {tmp_path / 'mine'}, size: [8, 8]}}"]
    ddpm_train.main(tiny.train_argv(None, tmp_path / "run", *data, "dataset_pipeline_train=[flip]"))
    ddpm_eval.main(tiny.eval_argv(tmp_path / "run" / "last.pt", tmp_path / "evaluation"))
    assert (tmp_path / "evaluation" / "report.html").is_file()
