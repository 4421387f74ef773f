"""Data of other shapes than LIDC's, and the example module of docs/datasets.md, can be trained on and evaluated."""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

import ddpm_eval
import ddpm_train
from datasets.loading import evaluation_batches, load_dataset
from tests import tiny
from tests.datasets.trees import write_png
from utils.schema import TrainSettings
from utils.settings import load_settings

DOCUMENT = tiny.ROOT / "docs" / "datasets.md"


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty working directory whose modules are forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    for name in [name for name in sys.modules if name.startswith("your_package")]:
        del sys.modules[name]


def write_slides(folder: Path) -> None:
    """Images with two or three annotators each, in the layout of the example."""
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        for number in range(4):
            write_png(folder / split / "images" / f"{number}.png", rng.integers(256, size=(8, 8, 3)))
            for annotator in range(2 + number % 2):
                path = folder / split / "labels" / f"{number}" / f"{annotator}.png"
                write_png(path, rng.integers(3, size=(8, 8)))


def test_documented_module_is_short_and_trains_as_written(workplace: Path) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    assert len([line for line in example.splitlines() if line.strip()]) <= 20
    (workplace / "your_package").mkdir()
    (workplace / "your_package" / "your_dataset.py").write_text(example)
    write_slides(workplace / "slides")
    changes = ["dataset_file=your_package.your_dataset", "dataset_params.path=slides"]
    ddpm_train.main(tiny.train_argv(None, workplace / "run", *changes))
    assert (workplace / "run" / "last.pt").is_file()
    dataset = load_dataset("your_package.your_dataset", "val", {"path": "slides"})
    (batch,) = evaluation_batches(dataset, [0, 1, 2, 3], 4, workers=0)
    assert batch.present.sum(1).tolist() == [2, 3, 2, 3]
    assert batch.images.min() < -0.9
    assert batch.images.max() > 0.9


def test_three_channels_five_classes_and_seven_annotators_train_and_evaluate(tmp_path: Path) -> None:
    rng, columns = np.random.default_rng(0), {}
    for split in ("train", "val", "test"):
        columns[split] = {
            "images": rng.uniform(-0.5, 0.5, size=(2, 3, 96, 160)),
            "labels": rng.integers(5, size=(2, 7, 96, 160), dtype=np.uint8),
            "uids": np.array([1, 2]),
        }
    path = tiny.write_hdf5(tmp_path / "data.hdf5", columns)
    changes = [
        "dataset_file=datasets.lidc",
        f"dataset_params.path={path}",
        "max_epochs=1",
        "batch_size=1",
        "validation_freq=100",
        "unet_openai.channel_mult=[1, 1, 1, 1, 1]",
        *(few := ["sampling.steps=1", "n_validation_images=0"]),
        "samples=2",
    ]
    ddpm_train.main(tiny.train_argv(None, tmp_path / "run", *changes))
    ddpm_eval.main(tiny.eval_argv(tmp_path / "run" / "last.pt", tmp_path / "evaluation", *few, "evaluations=2"))
    assert (tmp_path / "evaluation" / "results.json").is_file()
    network = torch.load(tmp_path / "run" / "last.pt", weights_only=True)["network"]
    assert (network["num_classes"], network["image_channels"]) == (5, 3)


@pytest.mark.parametrize(
    ("dataset_file", "batch_size", "base_channels", "polyak_alpha"),
    [
        ("datasets.lidc", 64, 32, 0.99995),
        ("datasets.lidc_crops", 64, 32, 0.99995),
        ("datasets.cityscapes", 32, 64, 0.999),
    ],
)
def test_one_line_switches_to_the_papers_recipe(
    dataset_file: str, batch_size: int, base_channels: int, polyak_alpha: float, tmp_path: Path
) -> None:
    on_command_line = load_settings(TrainSettings, [str(tiny.ROOT / "params.yml"), f"dataset_file={dataset_file}"], "")
    text = (tiny.ROOT / "params.yml").read_text()
    edited = tmp_path / "params.yml"
    edited.write_text(text.replace("dataset_file: datasets.synthetic", f"dataset_file: {dataset_file}", 1))
    assert load_settings(TrainSettings, [str(edited)], "") == on_command_line
    recipe = on_command_line
    assert (recipe.batch_size, recipe.unet_openai.base_channels, recipe.polyak_alpha) == (
        batch_size,
        base_channels,
        polyak_alpha,
    )
    assert (recipe.optim.learning_rate, recipe.optim.lr_params.min_lr, recipe.time_steps) == (1e-4, 1e-6, 250)
