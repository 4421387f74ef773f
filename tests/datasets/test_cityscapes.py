"""Cityscapes: classes from torchvision's table, both sizes of label maps, and messages about incomplete folders."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.datasets import Cityscapes as TorchvisionCityscapes

from datasets import cityscapes
from datasets.cityscapes import VOID, get_dataset
from datasets.loading import evaluation_batches
from tests.datasets.trees import refusal, write_cityscapes, write_png

MODULE = "datasets.cityscapes"
SCENES = ["ulm_000001_000019", "aachen_000002_000019", "aachen_000000_000019"]
ALL_IDS = np.arange(32 * 64).reshape(32, 64) % 34


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_cityscapes(tmp_path, "train", dict.fromkeys(SCENES, ALL_IDS))


def test_ids_become_the_train_ids_with_void_as_the_twentieth_class(root: Path) -> None:
    labels = get_dataset("train", str(root), size=(32, 64))[0]["labels"]
    assert (labels.dtype, labels.shape) == (torch.uint8, (1, 32, 64))
    expected = {c.id: c.train_id if c.train_id not in (255, -1) else 19 for c in TorchvisionCityscapes.classes}
    assert torch.equal(labels[0].long(), torch.from_numpy(np.vectorize(expected.get)(ALL_IDS)))
    assert set(labels.unique().tolist()) == set(range(20))


def test_names_and_colours_are_those_of_the_benchmark(root: Path) -> None:
    dataset = get_dataset("train", str(root))
    assert (dataset.num_classes, dataset.image_channels, dataset.void_class) == (20, 3, VOID)
    assert len(dataset.class_names) == len(dataset.class_colours) == 20
    assert dict(zip(dataset.class_names, dataset.class_colours, strict=True)) == {
        **{c.name: c.color for c in TorchvisionCityscapes.classes if c.train_id not in (255, -1)},
        "void": (0, 0, 0),
    }
    assert (dataset.class_names[0], dataset.class_names[13], dataset.class_names[18]) == ("road", "car", "bicycle")


def test_images_are_normalised_with_the_statistics_of_imagenet(tmp_path: Path) -> None:
    root = write_cityscapes(tmp_path, "train", {SCENES[0]: ALL_IDS})
    write_png(next(root.glob("leftImg8bit/*/*/*.png")), np.broadcast_to([51, 102, 255], (32, 64, 3)))
    image = get_dataset("train", str(root))[0]["image"]
    expected = [(0.2 - 0.485) / 0.229, (0.4 - 0.456) / 0.224, (1 - 0.406) / 0.225]
    assert torch.allclose(image, torch.tensor(expected).view(3, 1, 1).expand_as(image), atol=1e-5)


def test_images_are_resized_smoothly_and_label_maps_to_the_nearest_pixel(tmp_path: Path) -> None:
    ids = np.full((8, 8), 7)  # road
    ids[:, 4:] = 26  # car
    root = write_cityscapes(tmp_path, "train", {SCENES[0]: ids})
    write_png(next(root.glob("leftImg8bit/*/*/*.png")), np.where(ids[..., None] == 7, 0, 255) * np.ones(3))
    item = get_dataset("train", str(root), size=(6, 6))[0]
    assert set(item["labels"].unique().tolist()) == {0, 13}
    assert item["labels"][0, 0].tolist() == [0, 0, 0, 13, 13, 13]
    assert len(item["image"][0, 0].unique()) > 2


def test_items_are_sorted_by_name(root: Path) -> None:
    dataset = get_dataset("train", str(root))
    assert [dataset[index]["name"] for index in range(3)] == sorted(SCENES)


def test_original_label_maps_are_optional(root: Path) -> None:
    dataset = get_dataset("train", str(root), size=(8, 16), original_labels=True)
    (batch,) = evaluation_batches(dataset, [0, 2], 2, workers=0)
    assert (batch.images.shape, batch.labels.shape) == ((2, 3, 8, 16), (2, 1, 8, 16))
    whole = get_dataset("train", str(root), size=(32, 64))
    assert [labels.shape for labels in batch.original_labels] == [(1, 32, 64)] * 2
    assert torch.equal(batch.original_labels[1], whole[2]["labels"])
    (batch,) = evaluation_batches(whole, [0, 2], 2, workers=0)
    assert batch.original_labels == []


def test_class_counts_are_counted_once(
    root: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    dataset = get_dataset("train", str(root), size=(16, 32))
    labels = torch.stack([dataset[index]["labels"] for index in range(3)])
    counts = dataset.class_counts()
    assert torch.equal(counts, labels.flatten().bincount(minlength=20))
    (file,) = root.glob("*.json")
    with monkeypatch.context() as patch:
        patch.setattr(cityscapes, "_read_labels", None)
        assert torch.equal(get_dataset("train", str(root), size=(16, 32)).class_counts(), counts)
    whole = file.read_text()
    for damaged in ("[1, 2", "[" * 10**5, whole.replace("5", "6", 1), whole.replace("[", "[9,", 1), "", "{}"):
        file.write_text(damaged)
        assert torch.equal(get_dataset("train", str(root), size=(16, 32)).class_counts(), counts)
        assert f"{file} is damaged or belongs to other annotations" in caplog.text
        caplog.clear()
    for annotated in root.glob("gtFine/*/*/*"):
        write_png(annotated, np.zeros((32, 64)))
    assert get_dataset("train", str(root), size=(16, 32)).class_counts().tolist() == [0] * 19 + [3 * 16 * 32]
    file.unlink()


def test_missing_folders_are_refused(root: Path) -> None:
    assert f"there is no folder {root / 'leftImg8bit' / 'val'}" in refusal(MODULE, root, "val")
    for folder in ("leftImg8bit", "gtFine"):
        (root / folder / "val").mkdir()
    assert "split 'val' holds no images" in refusal(MODULE, root, "val")
    (root / "gtFine" / "train").rename(root / "gtFine" / "elsewhere")
    message = refusal(MODULE, root)
    assert f"there is no folder {root / 'gtFine' / 'train'}" in message
    assert "set dataset_params.path to the folder of leftImg8bit and gtFine" in message


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.unlink(), "_leftImg8bit.png has no annotation; expected {path}"),
        (
            lambda path: write_png(path, np.where(ALL_IDS == 33, 77, ALL_IDS)),
            "{path}: id 77 at (0, 33); expected the ids",
        ),
        (lambda path: write_png(path, np.zeros((32, 60))), "{path} is (32, 60), its image (32, 64): expected the same"),
        (lambda path: write_png(path, np.zeros((32, 64, 3))), "{path} is uint8 (32, 64, 3); expected 8 bits and one"),
        (lambda path: path.write_bytes(path.read_bytes()[:60]), "{path} cannot be read; it may be damaged"),
    ],
)
def test_annotation_that_does_not_fit_is_refused(root: Path, damage: Callable[[Path], object], message: str) -> None:
    path = root / "gtFine" / "train" / SCENES[0].split("_")[0] / f"{SCENES[0]}_gtFine_labelIds.png"
    damage(path)
    assert message.format(path=path) in refusal(MODULE, root)
