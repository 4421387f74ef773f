"""Evaluations that several files look at."""

from pathlib import Path
from typing import Any

import pytest
import torch

from datasets import load_dataset
from models import CCDM
from tests import tiny
from tests.evaluation.reports import HOSTILE, Evaluate, Evaluated, Segment, Segmented
from utils.schema import EvalSettings, Sampling


class Streets:
    """Five images of three classes, whose names have to be escaped, and void; the middle class does not occur."""

    num_classes, image_channels, void_class = 4, 3, 3
    class_names = (HOSTILE, "nowhere", "$a_b$ & \\frac", "void")
    class_colours = ((128, 64, 128), (70, 70, 70), (0, 0, 142), (0, 0, 0))
    original_labels = False

    def __len__(self) -> int:
        return 5

    def __getitem__(self, index: int) -> dict[str, Any]:
        labels = torch.zeros(1, 8, 16, dtype=torch.uint8)
        labels[:, : index + 1], labels[:, :, :2] = 2, 3
        item = {"image": tiny.images(1, 3, (8, 16), index)[0], "labels": labels, "name": f"{HOSTILE}{index}"}
        large = labels.repeat_interleave(2, 1).repeat_interleave(2, 2)
        return {**item, "original_labels": large} if self.original_labels else item


@pytest.fixture(scope="session")
def evaluated_with(data_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Evaluate:
    def run(model: CCDM | None = None, **changes: Any) -> Evaluated:
        data = load_dataset("datasets.synthetic", "test", {"path": str(data_folder), "side": tiny.SIDE})
        settings = {"evaluations": [1, 2, 4], "sampling": Sampling(steps=3), "n_validation_images": 3, **changes}
        return Evaluated(model or tiny.model(), data, EvalSettings(**settings), tmp_path_factory.mktemp("rows"))

    return run


@pytest.fixture(scope="session")
def evaluated(evaluated_with: Evaluate) -> Evaluated:
    return evaluated_with(sampling_steps=[2, 5], samplers=["ancestral", "ddim"])


@pytest.fixture(scope="session")
def segmented_with(tmp_path_factory: pytest.TempPathFactory) -> Segment:
    def run(model: CCDM | None = None, **changes: Any) -> Segmented:
        settings = {"evaluations": [1, 2, 4], "sampling": Sampling(steps=3), "n_validation_images": 3, **changes}
        folder = tmp_path_factory.mktemp("segmented")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("evaluation.segmentation.LabelFiles", lambda *_: None)  # names are no file names
            return Segmented(model or tiny.model(4, 3), Streets(), EvalSettings(**settings), folder)

    return run


@pytest.fixture(scope="session")
def segmented(segmented_with: Segment) -> Segmented:
    return segmented_with(sampling_steps=[2, 5], samplers=["ancestral", "ddim"])
