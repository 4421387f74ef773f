"""What is said of a dataset before training."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from evaluation import inspect_data
from tests import tiny


def test_splits_are_described_and_drawn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, two = np.zeros((2, 4, 4), np.uint8)
    one[:2], two[:1] = 1, 1
    labels = np.stack([[one, two], [one, one], [0 * one, 0 * one]])
    path = tiny.write_hdf5(
        tmp_path / "data.hdf5", {"val": {"images": np.zeros((3, 4, 4), np.float32), "labels": labels}}
    )
    out = tmp_path / "data.png"
    inspect_data.main([f"dataset_params.path={path}", "dataset_file=datasets.lidc", f"out={out}"])
    said = capsys.readouterr().out
    assert "train: " in said and "no split 'train'" in said
    for line in (
        "val: 3 images", "height x width        4 x 4", "channels, values      1, 0 to 0", "raters per image      2\n",
        "classes, % of pixels  0: 70.8, 1: 29.2", "empty label maps      2 of 6",
        "IoU of two raters     0.833", "GED                   1.250 always empty, 0.083 majority vote",
    ):  # fmt: skip
        assert line in said, line
    with Image.open(out) as picture:
        assert picture.width > picture.height


def test_data_that_cannot_be_read_at_all_is_refused(tmp_path: Path) -> None:
    assert tiny.refusal(inspect_data.main, [f"dataset_params.path={tmp_path}"]) == "no split can be read"
    assert "dataset_fil" in tiny.refusal(inspect_data.main, ["dataset_fil=x"])
