"""Small files and folders in the formats of the published datasets."""

import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from datasets.loading import load_dataset
from utils.errors import UserError


def write_png(path: Path, values: Any) -> Path:
    """Write an image of these values."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(values, dtype=np.uint8)).save(path)
    return path


def refusal(module: str, root: Path, split: str = "train") -> str:
    """The message with which a dataset in that folder is opened or read."""
    with pytest.raises(UserError) as error:
        dataset = load_dataset(module, split, {"path": str(root)})
        for index in range(len(dataset)):
            dataset[index]
    assert str(root) in str(error.value)
    return str(error.value)


def crop_paths(root: Path, split: str, patient: str, slice_: str) -> tuple[Path, list[Path]]:
    """The files of an image of LIDCv2 and of its four annotators."""
    folder = root / f"lidc_crops_{split}" / split
    masks = [folder / "gt" / patient / f"{slice_}_l{annotator}.png" for annotator in range(4)]
    return folder / "images" / patient / f"{slice_}.png", masks


def write_crops(root: Path, slices: Mapping[str, Sequence[tuple[str, str]]], side: int = 180) -> Path:
    """The folders of LIDCv2 with these (patient, slice) pairs; annotator k marks rows 60 to 70 + k of every image."""
    for split, named in slices.items():
        for number, (patient, slice_) in enumerate(named):
            image, masks = crop_paths(root, split, patient, slice_)
            rows, columns = np.mgrid[:side, :side]
            write_png(image, (rows + 2 * columns + 7 * number) % 256)
            for annotator, mask in enumerate(masks):
                write_png(mask, 255 * ((rows >= 60) & (rows < 70 + annotator)))
    return root


CROPS = {
    "train": [("LIDC-IDRI-0001", "z-105.0_c0"), ("LIDC-IDRI-0001", "z-105.0_c10"), ("LIDC-IDRI-0007", "z3_c0")],
    "val": [("LIDC-IDRI-0002", "z9_c0")],
    "test": [("LIDC-IDRI-0003", "z9_c0"), ("LIDC-IDRI-0003", "z9_c1")],
}


def pickle_entries(patients: int = 10, slices: int = 3, side: int = 12) -> dict[str, dict[str, Any]]:
    """The contents of a data_lidc.pickle; the masks of the third annotator are empty."""
    rng = np.random.default_rng(0)
    entries = {}
    for number in rng.permutation(patients * slices):
        masks = [(rng.random((side, side)) < 0.3).astype(np.uint8) * (annotator != 2) for annotator in range(4)]
        entries[f"slice {number:03d}"] = {
            "image": rng.random((side, side)),
            "masks": masks,
            "series_uid": f"1.3.6.1.{number % patients}",
        }
    return entries


def write_pickle(path: Path, contents: Any, protocol: int = 4) -> Path:
    """Write a pickle."""
    path.write_bytes(pickle.dumps(contents, protocol))
    return path


def write_cityscapes(root: Path, split: str, ids: Mapping[str, Any]) -> Path:
    """The folders of Cityscapes with the id map of every scene, such as "aachen_000000_000019"."""
    rng = np.random.default_rng(0)
    for scene, map_ in ids.items():
        city = scene.split("_")[0]
        write_png(
            root / "leftImg8bit" / split / city / f"{scene}_leftImg8bit.png",
            rng.integers(256, size=(*np.shape(map_), 3)),
        )
        write_png(root / "gtFine" / split / city / f"{scene}_gtFine_labelIds.png", map_)
    return root
