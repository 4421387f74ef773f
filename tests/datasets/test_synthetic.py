"""The synthetic dataset: generated once from a seed, with labels that follow the stored distribution."""

import contextlib
import os
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from scipy import stats

from datasets import KnownDistribution, synthetic
from datasets.loading import evaluation_batches
from datasets.synthetic import STYLES, SyntheticLesions, get_dataset, write_dataset
from evaluation import always_empty, majority_vote, oracle
from metrics import ged
from utils.errors import UserError

FINE = 1e-4


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with images of the default size, but fewer for training; images do not depend on their number."""
    path = tmp_path_factory.mktemp("synthetic")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(synthetic, "SPLIT_SIZES", {"train": 256, "val": 128, "test": 4})
        get_dataset("train", str(path))
    return path


@pytest.fixture(scope="module")
def val(folder: Path) -> SyntheticLesions:
    return get_dataset("val", str(folder))


@pytest.fixture
def few_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(synthetic, "SPLIT_SIZES", {"train": 3, "val": 2, "test": 1})


def columns(folder: Path, split: str) -> dict[str, np.ndarray]:
    (path,) = folder.glob("*.hdf5")
    with h5py.File(path) as file:
        return {name: file[split][name][()] for name in ("images", "labels", "maps", "map_probabilities")}


@pytest.mark.usefixtures("few_images")
def test_same_seed_gives_the_same_bytes_and_another_seed_other_images(tmp_path: Path) -> None:
    for name, seed in [("a", 0), ("b", 0), ("c", 1)]:
        write_dataset(tmp_path / name, side=16, seed=seed)
    a, b, c = ((tmp_path / name).read_bytes() for name in "abc")
    assert a == b
    assert a != c
    with h5py.File(tmp_path / "a") as one, h5py.File(tmp_path / "c") as other:
        assert not np.array_equal(one["train/images"], other["train/images"])
        assert not np.array_equal(one["train/images"][:2], one["val/images"])


@pytest.mark.usefixtures("few_images")
def test_file_is_written_once(tmp_path: Path) -> None:
    get_dataset("train", str(tmp_path), side=8)
    (file,) = tmp_path.iterdir()
    written = file.stat().st_mtime_ns, file.stat().st_ino
    get_dataset("val", str(tmp_path), side=8)
    assert (file.stat().st_mtime_ns, file.stat().st_ino) == written
    get_dataset("val", str(tmp_path), side=8, seed=1)
    assert len(list(tmp_path.iterdir())) == 2


def test_images_do_not_depend_on_their_number(tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(synthetic, "SPLIT_SIZES", {"val": 3})
    dataset, whole = get_dataset("val", str(tmp_path)), get_dataset("val", str(folder))
    assert all(torch.equal(dataset[index]["image"], whole[index]["image"]) for index in range(3))


def test_items_follow_the_contract(val: SyntheticLesions) -> None:
    item = val[5]
    assert (item["image"].dtype, item["image"].shape) == (torch.float32, (1, 32, 32))
    assert item["image"].min() >= -1
    assert item["image"].max() <= 1
    assert (item["labels"].dtype, item["labels"].shape) == (torch.uint8, (4, 32, 32))
    assert set(item["labels"].unique().tolist()) <= {0, 1}
    assert (val.num_classes, val.image_channels, len(val)) == (2, 1, 128)
    assert isinstance(val, KnownDistribution)


def test_map_probabilities_are_a_distribution_and_the_first_map_is_empty(folder: Path) -> None:
    data = columns(folder, "train")
    assert data["map_probabilities"].shape == (256, len(STYLES))
    assert np.allclose(data["map_probabilities"].sum(1), 1, atol=1e-12)
    assert (data["map_probabilities"] > 0).all()
    assert (data["maps"][:, 0] == 0).all()
    assert data["maps"][:, 1:].any((2, 3)).mean() > 0.99


def test_lesion_is_missed_more_often_as_its_contrast_falls(folder: Path) -> None:
    data = columns(folder, "train")
    lesion, around = data["maps"][:, 5] == 1, data["maps"][:, 6] == 0
    contrast = [
        np.median(image[inside]) - np.median(image[outside])
        for image, inside, outside in zip(data["images"].astype(float), lesion, around, strict=True)
    ]
    missed = data["map_probabilities"][:, 0]
    assert stats.spearmanr(contrast, missed).statistic < -0.6
    is_empty = ~data["labels"].any((2, 3))
    faint = np.argsort(contrast)[:128]
    assert is_empty[faint].mean() > np.delete(is_empty, faint, axis=0).mean() + 0.1


def test_annotators_draw_from_the_distribution_in_the_file(folder: Path) -> None:
    data = columns(folder, "train")
    distinct = np.array([len(np.unique(maps.reshape(len(maps), -1), axis=0)) == len(maps) for maps in data["maps"]])
    assert distinct.mean() > 0.9
    labels, maps, p = (data[name][distinct] for name in ("labels", "maps", "map_probabilities"))
    drawn = (labels[:, :, None] == maps[:, None]).all((-2, -1))
    assert drawn.any(2).all()
    expected, variance = 4 * p.sum(0), 4 * (p * (1 - p)).sum(0)
    assert (np.abs(drawn.sum((0, 1)) - expected) / np.sqrt(variance) < 4.5).all()


@pytest.mark.parametrize("index", [0, 17, 99])
def test_oracle_draws_from_the_distribution_in_the_file(val: SyntheticLesions, folder: Path, index: int) -> None:
    data, number = columns(folder, "val"), 4000
    labels = val.draw_labels(index, number).numpy().reshape(number, -1)
    maps, which = np.unique(data["maps"][index].reshape(len(STYLES), -1), axis=0, return_inverse=True)
    probabilities = np.bincount(which.ravel(), data["map_probabilities"][index])
    counts = (labels[:, None] == maps[None]).all(2).sum(0)
    assert counts.sum() == number
    assert stats.chisquare(counts, probabilities * number).pvalue > FINE


def test_oracles_draws_are_keyed_by_seed_and_image(val: SyntheticLesions) -> None:
    assert torch.equal(val.draw_labels(3, 8, seed=1), val.draw_labels(3, 8, seed=1))
    assert not torch.equal(val.draw_labels(3, 8, seed=1), val.draw_labels(3, 8, seed=2))
    patterns = {tuple(val.draw_labels(index, 12).flatten(1).any(1).tolist()) for index in range(20)}
    assert len(patterns) > 10


def test_oracle_is_far_better_than_the_baselines(val: SyntheticLesions) -> None:
    (batch,) = evaluation_batches(val, list(range(128)), 128, workers=0)
    geds = {
        name: ged(batch.labels, predictor(batch).labels, 2).ged.mean()
        for name, predictor in {
            "oracle": oracle(val, 16, seed=0),
            "majority vote": majority_vote(2),
            "always empty": always_empty(2),
        }.items()
    }
    assert geds["oracle"] <= geds["majority vote"] - 0.20
    assert geds["oracle"] <= geds["always empty"] - 0.20


def test_file_that_another_user_left_in_a_public_folder_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(synthetic, "SPLIT_SIZES", {"train": 2})
    tmp_path.chmod(0o1777)
    file = get_dataset("train", str(tmp_path), side=8).path
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    with contextlib.suppress(PermissionError):  # files of the superuser are trusted
        os.chown(file, 54321, -1)
    with pytest.raises(UserError, match="belongs to another user; choose a folder of your own"):
        get_dataset("train", str(tmp_path), side=8)
    tmp_path.chmod(0o755)
    assert len(get_dataset("train", str(tmp_path), side=8)) == 2


@pytest.mark.parametrize(("name", "value"), [("map_probabilities", 0.3), ("maps", 7)])
def test_damaged_distribution_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: float
) -> None:
    monkeypatch.setattr(synthetic, "SPLIT_SIZES", {"train": 2})
    dataset = get_dataset("train", str(tmp_path), side=8)
    with h5py.File(dataset.path, "r+") as file:
        file[f"train/{name}"][1] = value
    assert dataset.draw_labels(0, 3).shape == (3, 8, 8)
    with pytest.raises(UserError, match="train/1"):
        dataset.draw_labels(1, 3)
    with pytest.raises(UserError, match="train/1"):
        dataset.label_probabilities(1)
