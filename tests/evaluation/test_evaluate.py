"""What an evaluation consists of."""

from pathlib import Path

import pytest

from datasets import AnnotatedDataset, load_dataset
from evaluation.evaluate import fingerprint_of
from tests import tiny
from utils.schema import EvalSettings
from utils.settings import load_settings


@pytest.fixture
def data(data_folder: Path) -> AnnotatedDataset:
    return load_dataset("datasets.synthetic", "test", {"path": str(data_folder), "side": tiny.SIDE})


def fingerprint(data: AnnotatedDataset, *changes: str) -> str:
    settings = load_settings(EvalSettings, [str(tiny.ROOT / "params_eval.yml"), *changes], default_file="")
    return fingerprint_of("digest", settings, data, [16], None)


@pytest.mark.parametrize("change", ["precision=bfloat16", "batch_size=3", "dataset_split=val"])
def test_rows_made_another_way_are_not_used(data: AnnotatedDataset, change: str) -> None:
    assert fingerprint(data, change) != fingerprint(data)


@pytest.mark.parametrize("change", ["load_from=elsewhere.pt", "n_validation_images=0", "mp_loaders=2"])
def test_rows_made_the_same_way_are_used_again(data: AnnotatedDataset, change: str) -> None:
    assert fingerprint(data, change) == fingerprint(data)
