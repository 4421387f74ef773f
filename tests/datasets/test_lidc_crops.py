"""The png crops of LIDCv2: label maps are matched to images and annotators by name; incomplete folders are refused."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import ddpm_train
from checkpoints.files import load_checkpoint
from datasets.lidc_crops import get_dataset, random_crop
from tests import tiny
from tests.datasets.trees import CROPS, crop_paths, refusal, write_crops, write_png

MODULE = "datasets.lidc_crops"
PATIENT, SLICE = CROPS["train"][0]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_crops(tmp_path, CROPS)


def test_items_are_the_middle_of_the_images(root: Path) -> None:
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


def test_random_crops_of_training_images_are_functions_of_their_keys_and_reach_every_place(root: Path) -> None:
    whole, middle = get_dataset("train", str(root), whole=True)[1], get_dataset("train", str(root))[1]
    assert (whole["image"].shape, whole["labels"].shape) == ((1, 180, 180), (4, 180, 180))
    assert torch.equal(whole["image"][:, 26:154, 26:154], middle["image"])
    assert get_dataset("val", str(root), whole=True)[0]["image"].shape == (1, 128, 128)

    position = torch.arange(180 * 180).view(1, 1, 180, 180)
    keys, many = torch.arange(1000), (1000, 1, 180, 180)
    images, labels = random_crop(position.expand(many), position.expand(many), keys)
    assert torch.equal(images, labels)
    first = images[:, 0, 0, 0]
    assert torch.equal(images[:, 0] - first[:, None, None], (position[0, :, :128, :128]).expand(1000, -1, -1))
    for corner in (first // 180, first % 180):
        assert torch.equal(corner.unique(), torch.arange(53))
    three = position.expand(3, 1, 180, 180)
    assert torch.equal(random_crop(three, three, keys[5:8])[0], images[5:8])


def test_training_on_random_crops_is_validated_and_predicted_on_the_middle(root: Path, tmp_path: Path) -> None:
    changes = [
        "dataset_file=datasets.lidc_crops", f"dataset_params={{path: '{root}', whole: true}}", "train_for=1 step",
        "dataset_pipeline_train=[datasets.lidc_crops.random_crop, flip]", "batch_size=2", "network_params.patch_size=4",
        "sampling.steps=1", "num_samples=1", "n_validation_images=0", "dataset_val_max_size=1", "cache=memory",
    ]  # fmt: skip
    ddpm_train.main(tiny.train_argv(None, tmp_path / "run", *changes))
    assert load_checkpoint(tmp_path / "run" / "last.pt")["preprocessing"]["size"] == [128, 128]


def test_patients_are_groups(root: Path) -> None:
    items = [get_dataset("train", str(root))[index] for index in range(3)]
    assert items[0]["group"] == items[1]["group"] != items[2]["group"]
    assert [item["name"] for item in items] == [f"train/{patient}/{slice_}" for patient, slice_ in CROPS["train"]]


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


def test_missing_folders_and_images_are_refused(root: Path, tmp_path: Path) -> None:
    assert "there is no folder" in refusal(MODULE, tmp_path / "nowhere")
    assert "choose from the splits train, val, test" in refusal(MODULE, root, "other")
    for part in ("images", "gt"):
        (tmp_path / "empty" / "lidc_crops_val" / "val" / part).mkdir(parents=True)
    assert "holds no images" in refusal(MODULE, tmp_path / "empty", "val")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda image, masks: masks[2].unlink(), "{image} lacks {masks[2].name}"),
        (lambda image, masks: image.unlink(), "{masks[0]} has no image"),
        (lambda image, masks: masks[3].rename(masks[3].with_name("x.png")), "lacks {masks[3].name}"),
        (lambda image, masks: write_png(masks[0].with_name("x.png"), [[0]]), "x.png has no image; expected <slice>_l"),
        (lambda image, masks: write_png(masks[3], np.full((180, 180), 7)), "{masks[3]} holds 7; expected 0 for"),
        (lambda image, masks: image.write_bytes(image.read_bytes()[:100]), "{image} cannot be read; it may"),
        (lambda image, masks: write_png(image, np.zeros((180, 180, 3))), "{image} is uint8 (180, 180, 3); expected 8"),
        (lambda image, masks: write_png(image, np.zeros((180, 170))), "{masks[0]} is (180, 180), its image"),
        (lambda image, masks: write_png(image, np.zeros((120, 180))), "{image} is (120, 180); expected at least 128"),
    ],
)
def test_files_that_do_not_fit_are_refused(
    root: Path, damage: Callable[[Path, list[Path]], object], message: str
) -> None:
    image, masks = crop_paths(root, "train", PATIENT, SLICE)
    damage(image, masks)
    assert message.format(image=image, masks=masks) in refusal(MODULE, root)


def test_patient_in_two_splits_is_refused(root: Path) -> None:
    write_crops(root, {"val": [("LIDC-IDRI-0007", "z3_c0")]})
    assert "patient LIDC-IDRI-0007 is in both train and val" in refusal(MODULE, root)
