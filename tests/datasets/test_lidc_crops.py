"""The png crops of LIDCv2: annotators go by the names of their files, and incomplete trees are refused."""

from pathlib import Path

import numpy as np
import pytest
import torch

from datasets.lidc_crops import get_dataset
from datasets.loading import load_dataset, training_batches
from tests.datasets.trees import CROPS, crop_paths, write_crops, write_png
from utils.errors import UserError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_crops(tmp_path, CROPS)


def refusal(root: Path, split: str = "train") -> str:
    with pytest.raises(UserError) as error:
        dataset = load_dataset("datasets.lidc_crops", split, {"path": str(root)})
        for index in range(len(dataset)):
            dataset[index]
    assert str(root) in str(error.value)
    return str(error.value)


def test_items_are_the_middle_of_the_pictures(root: Path) -> None:
    dataset = get_dataset("train", str(root))
    assert (len(dataset), dataset.num_classes, dataset.image_channels) == (3, 2, 1)
    item = dataset[1]
    rows, columns = np.mgrid[26:154, 26:154]
    expected = torch.from_numpy((rows + 2 * columns + 7) % 256).float()
    assert (item["image"].dtype, item["image"].shape) == (torch.float32, (1, 128, 128))
    assert torch.allclose(item["image"][0], expected / 127.5 - 1, atol=1e-6)
    assert (item["labels"].dtype, item["labels"].shape) == (torch.uint8, (4, 128, 128))
    assert [int(map_.sum()) for map_ in item["labels"]] == [128 * (10 + annotator) for annotator in range(4)]
    assert item["labels"][:, 60 - 26 - 1 : 60 - 26 + 1, 0].tolist() == [[0, 1]] * 4


def test_patients_are_groups(root: Path) -> None:
    dataset = get_dataset("train", str(root))
    groups = [dataset[index]["group"] for index in range(3)]
    assert groups[0] == groups[1] != groups[2]
    assert [dataset[index]["name"] for index in range(2)] == [
        "train/LIDC-IDRI-0001/z-105.0_c0",
        "train/LIDC-IDRI-0001/z-105.0_c10",
    ]


def test_annotators_are_matched_by_name_where_sorting_would_mix_them(tmp_path: Path) -> None:
    # Sorted, "a_l0_l0.png" comes between "a_l0.png" and "a_l1.png".
    root = write_crops(tmp_path, {"train": [("p", "a"), ("p", "a_l0")]})
    for number, slice_ in enumerate(("a", "a_l0")):
        for annotator, mask in enumerate(crop_paths(root, "train", "p", slice_)[1]):
            write_png(mask, 255 * (np.arange(180 * 180).reshape(180, 180) == 90 * 180 + 40 + 10 * number + annotator))
    dataset = get_dataset("train", str(root))
    for number in range(2):
        at = [int(map_.flatten().argmax()) for map_ in dataset[number]["labels"]]
        assert at == [(90 - 26) * 128 + 40 - 26 + 10 * number + annotator for annotator in range(4)]


def test_all_four_annotators_are_drawn_in_training(root: Path) -> None:
    batches = training_batches(get_dataset("train", str(root)), [], 3, 0, 20, seed=0, workers=0)
    areas = {int(labels.sum()) for batch in batches for labels in batch.labels}
    assert areas == {128 * (10 + annotator) for annotator in range(4)}


def test_missing_folders_are_refused(root: Path, tmp_path: Path) -> None:
    assert "there is no folder" in refusal(tmp_path / "nowhere")
    assert "lidc_crops_other" in refusal(root, "other")


def test_image_without_one_of_its_label_maps_is_refused(root: Path) -> None:
    crop_paths(root, "train", "LIDC-IDRI-0001", "z-105.0_c10")[1][2].unlink()
    message = refusal(root)
    assert "z-105.0_c10.png lacks z-105.0_c10_l2.png" in message


def test_label_maps_without_their_image_are_refused(root: Path) -> None:
    crop_paths(root, "train", "LIDC-IDRI-0007", "z3_c0")[0].unlink()
    assert "has label maps of z3_c0" in refusal(root)


def test_split_without_images_is_refused(tmp_path: Path) -> None:
    for part in ("images", "gt"):
        (tmp_path / "lidc_crops_val" / "val" / part).mkdir(parents=True)
    assert "holds no images" in refusal(tmp_path, "val")


def test_patient_in_two_splits_is_refused(root: Path) -> None:
    write_crops(root, {"val": [("LIDC-IDRI-0007", "z3_c0")]})
    assert "patient LIDC-IDRI-0007 is in the splits train and val" in refusal(root)


def test_values_that_are_no_label_are_refused(root: Path) -> None:
    mask = crop_paths(root, "train", "LIDC-IDRI-0001", "z-105.0_c0")[1][3]
    write_png(mask, np.full((180, 180), 7))
    assert f"{mask} holds 7; expected 0 for background and 255" in refusal(root)


def test_pictures_of_the_wrong_form_are_refused(root: Path) -> None:
    image, masks = crop_paths(root, "train", "LIDC-IDRI-0001", "z-105.0_c0")
    whole = image.read_bytes()
    image.write_bytes(whole[: len(whole) // 2])
    assert f"{image} cannot be read; it may be damaged" in refusal(root)
    write_png(image, np.zeros((180, 180, 3)))
    assert f"{image} is uint8 (180, 180, 3); expected 8 bits and one channel" in refusal(root)
    write_png(image, np.zeros((180, 170)))
    assert f"{masks[0]} is (180, 180), its image {image} (180, 170)" in refusal(root)


def test_pictures_that_are_too_small_are_refused(tmp_path: Path) -> None:
    assert "expected at least 128 x 128" in refusal(write_crops(tmp_path, CROPS, side=120))
