"""Evaluations that several files share."""

from pathlib import Path
from typing import Any

import pytest

from datasets import load_dataset, synthetic
from datasets.synthetic import SyntheticLesions, get_dataset
from diffusion import SamplingConfig
from models import CCDM
from tests import tiny
from tests.evaluation.data import Streets
from tests.evaluation.reports import Evaluate, Evaluated

SETTINGS = {"num_samples": [1, 2, 4], "sampling": SamplingConfig(steps=3), "n_validation_images": 3}
SWEEP = {"steps": [2, 5], "samplers": ["ancestral", "ddim"]}


@pytest.fixture(scope="session")
def evaluated_with(data_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Evaluate:
    def run(model: CCDM | None = None, **changes: Any) -> Evaluated:
        data = load_dataset("datasets.synthetic", "test", {"path": str(data_folder), "side": tiny.SIDE})
        return Evaluated(model or tiny.model(), data, tmp_path_factory.mktemp("evaluated"), **{**SETTINGS, **changes})

    return run


@pytest.fixture(scope="session")
def evaluated(evaluated_with: Evaluate) -> Evaluated:
    return evaluated_with(sweep=SWEEP)


@pytest.fixture(scope="session")
def segmented_with(tmp_path_factory: pytest.TempPathFactory) -> Evaluate:
    def run(model: CCDM | None = None, **changes: Any) -> Evaluated:
        folder = tmp_path_factory.mktemp("segmented")
        return Evaluated(model or tiny.model(4, 3), Streets(), folder, **{**SETTINGS, **changes})

    return run


@pytest.fixture(scope="session")
def segmented(segmented_with: Evaluate) -> Evaluated:
    return segmented_with(sweep=SWEEP)


@pytest.fixture(scope="session")
def val(tmp_path_factory: pytest.TempPathFactory) -> SyntheticLesions:
    folder: Path = tmp_path_factory.mktemp("scores")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(synthetic, "SPLIT_SIZES", {"val": 40})
        return get_dataset("val", str(folder), side=12)
