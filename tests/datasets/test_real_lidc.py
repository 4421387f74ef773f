"""Loader and metric together on real LIDC, where the scores of trivial predictors are known.

The data is not part of the repository. The environment variable CCDM_LIDC names its folder; the default is
../shared/data/lidc.
"""

import os
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from torch import Tensor

from datasets.lidc import HDF5Dataset, get_dataset
from datasets.loading import evaluation_batches
from metrics import ged
from tests.tiny import ROOT

FOLDER = Path(os.environ.get("CCDM_LIDC", ROOT / ".." / "shared" / "data" / "lidc"))

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (FOLDER / "test.hdf5").is_file(), reason="needs real LIDC: set CCDM_LIDC to its folder"),
]


@pytest.fixture(scope="module")
def test_split(tmp_path_factory: pytest.TempPathFactory) -> HDF5Dataset:
    """The test split in the layout of the benchmark: float64 in [-0.5, 0.5]."""
    path = tmp_path_factory.mktemp("lidc") / "data_lidc.hdf5"
    with h5py.File(FOLDER / "test.hdf5") as source, h5py.File(path, "w") as file:
        group = file.create_group("test")
        group["images"] = source["images"][()] / 255 - 0.5
        group["labels"], group["uids"] = source["labels"][()], source["uids"][()]
    return get_dataset("test", str(path))


def test_trivial_predictors_have_the_known_scores(test_split: HDF5Dataset) -> None:
    geds: dict[str, list[Tensor]] = {}
    generator = torch.Generator().manual_seed(0)
    for batch in evaluation_batches(test_split, list(range(len(test_split))), 64, workers=0):
        labels, votes = batch.labels, batch.labels.sum(1, keepdim=True)
        draws = torch.stack([maps[torch.randint(4, (16,), generator=generator)] for maps in labels])
        for name, samples in {
            "always empty": torch.zeros_like(votes),
            "first annotator": labels[:, :1],
            "at least two": votes >= 2,
            "more than two": votes > 2,
            "annotators": draws,
        }.items():
            geds.setdefault(name, []).append(ged(labels, samples.to(torch.uint8), 2).ged)
    means = {name: float(torch.cat(values).mean()) for name, values in geds.items()}
    assert means["always empty"] == pytest.approx(0.767, abs=1e-3)
    assert means["first annotator"] == pytest.approx(0.553, abs=1e-3)
    assert means["at least two"] == pytest.approx(0.298, abs=1e-3)
    assert means["more than two"] == pytest.approx(0.263, abs=1e-3)
    assert means["annotators"] == pytest.approx(0.0255, abs=5e-3)


def test_images_are_scaled_for_the_network_and_patients_are_read(test_split: HDF5Dataset) -> None:
    assert (len(test_split), test_split.num_classes, len(np.unique(test_split.uids))) == (1279, 2, 75)
    images = torch.stack([test_split[index]["image"] for index in range(0, 1279, 40)])
    assert images.shape[1:] == (1, 128, 128)
    assert images.min() == -1
    assert images.max() == 1
