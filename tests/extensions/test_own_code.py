"""One file per extension: a user's network, process, dataset and augmentation, named on the command line.

The files are in `own_code`, which plays the role of the user's working directory.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import ddpm_eval
import ddpm_predict
import ddpm_train
from checkpoints.files import load_checkpoint
from checkpoints.model import build_model
from tests import tiny
from tests.datasets.trees import write_png
from utils.errors import UserError

OWN_CODE = Path(__file__).parent / "own_code"
MODULES = ["my_network", "my_process", "my_data"]
DATA = ["dataset_file=my_data", "dataset_params={number: 6, side: 8}", "dataset_pipeline_train=[my_data.Transpose]"]
NETWORK = ["network=my_network", "network_params={width: 8}"]
PROCESS = ["process=my_process", "process_params={time_steps: 20}"]
SMALL_UNET = ["network_params={channel_mult: [1], num_res_blocks: 1, attention_resolutions: []}"]
SHORT = [
    "device=cpu", "precision=float32", "batch_size=4", "train_for=3 epochs", "mp_loaders=0", "num_samples=2",
    "sampling.steps=3", "n_validation_images=2",
]  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def working_directory() -> Iterator[None]:
    """The user's folder, whose modules are forgotten afterwards."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(OWN_CODE)
        patch.setattr(sys, "path", list(sys.path))
        yield
    for name in MODULES:
        sys.modules.pop(name, None)


def train(folder: Path, *changes: str) -> dict[str, Any]:
    """Train with modules that are named on the command line; returns the last checkpoint."""
    ddpm_train.main([str(tiny.ROOT / "params.yml"), f"output_path={folder}", *SHORT, *DATA, *changes])
    return load_checkpoint(folder / "last.pt")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training in which everything is the user's own, named in a YAML file."""
    folder = tmp_path_factory.mktemp("own")
    lines = [setting.replace("=", ": ", 1) for setting in (*DATA, *NETWORK, *PROCESS)]
    (folder / "own.yml").write_text("\n".join(lines))
    ddpm_train.main([str(folder / "own.yml"), f"output_path={folder}/run", *SHORT])
    return folder / "run"


def test_training_saves_the_names_of_the_modules(run: Path) -> None:
    contents, sizes = load_checkpoint(run / "last.pt"), {"num_classes": 2, "image_channels": 1}
    assert contents["network"] == {"module": "my_network", "params": {**sizes, "width": 8}}
    assert contents["process"] == {"module": "my_process", "params": {"num_classes": 2, "time_steps": 20}}
    assert contents["preprocessing"]["class_names"] == ["ground", "square"]
    assert contents["step"] == 4
    assert set(contents["best"]) == {"ged", "hm_iou"}


@pytest.mark.parametrize("parts", [NETWORK, [*PROCESS, *SMALL_UNET], [*NETWORK, "process=diffusion.classifier"]])
def test_own_parts_are_combined_with_those_of_the_project(parts: list[str], tmp_path: Path) -> None:
    contents = train(tmp_path / "run", *parts, "train_for=1 epoch", "sampling.steps=1")
    model = build_model(contents, trusted=["my_network", "my_process"])
    labels = model.sample(tiny.images(2), 3).labels
    assert labels.shape == (2, 3, tiny.SIDE, tiny.SIDE)
    assert set(labels.unique().tolist()) <= {0, 1}


def test_training_resumes(run: Path, tmp_path: Path) -> None:
    contents = train(tmp_path / "rest", *NETWORK, *PROCESS, f"load_from={run}/last.pt", "train_for=5 epochs")
    assert contents["step"] == 7


def test_samples_contain_no_state_that_is_no_class(run: Path) -> None:
    model = build_model(load_checkpoint(run / "last.pt"), trusted=MODULES)
    assert model.process.num_states == 3
    times, maps = zip(*model.trajectory(tiny.images(2)), strict=True)
    assert times[0] == 20
    assert (maps[0] == 2).all()
    assert (maps[-1] < 2).all()
    samples = model.sample(tiny.images(2), 4)
    assert samples.probabilities.shape == (2, 2, tiny.SIDE, tiny.SIDE)
    torch.testing.assert_close(samples.probabilities.sum(1), torch.ones(2, tiny.SIDE, tiny.SIDE))


def test_evaluation_imports_what_the_user_names(run: Path, tmp_path: Path) -> None:
    argv = tiny.eval_argv(run / "last.pt", tmp_path / "results", "dataset_split=val", "bits_per_pixel=true")
    named = ["network=my_network", "process=my_process", "dataset_file=my_data"]
    for missing in named:
        with pytest.raises(UserError, match=f"{missing}"):
            ddpm_eval.main([*argv, *(name for name in named if name != missing)])
    ddpm_eval.main([*argv, *named])
    contents = json.loads((tmp_path / "results" / "results.json").read_text())
    values = {row["metric"]: row["mean"] for row in contents["results"][0]["metrics"]}
    assert 0 <= values["ged"] <= 2
    assert 0 < values["bits_per_pixel"] < 2
    assert (tmp_path / "results" / "samples.png").is_file()


def test_prediction_imports_what_the_user_names(run: Path, tmp_path: Path) -> None:
    write_png(tmp_path / "scan.png", np.random.default_rng(0).integers(256, size=(12, 8)))
    argv = [str(run / "last.pt"), str(tmp_path / "scan.png"), "--num-samples", "2", "--out", str(tmp_path / "out")]
    with pytest.raises(UserError, match="--network my_network"):
        ddpm_predict.main(argv)
    ddpm_predict.main([*argv, "--network", "my_network", "--process", "my_process"])
    assert (tmp_path / "out" / "summary.csv").is_file()
