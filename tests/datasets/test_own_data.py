"""Data of other shapes than LIDC's, and the example module of docs/datasets.md, can be trained on and evaluated."""

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import ddpm_eval
import ddpm_train
from datasets.loading import evaluation_batches, load_dataset
from tests import tiny
from tests.datasets.trees import write_png
from training.settings import TrainSettings
from utils.settings import load_settings

DOCUMENT = tiny.ROOT / "docs" / "datasets.md"
AUGMENTATION = """
def invert(images, labels, keys):
    return -images, labels
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder `your_package` in the working directory, whose modules are forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "your_package").mkdir()
    yield tmp_path / "your_package"
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


def evaluated_images(folder: Path) -> int:
    return int(json.loads((folder / "results.json").read_text())["results"][0]["num_images"])


@pytest.mark.parametrize(
    "attributes", ["num_classes, image_channels = 3, 3", "num_classes, image_channels, void_class = 3, 3, 2"]
)
def test_documented_module_works_as_written_with_a_void_class_and_with_an_own_augmentation(
    package: Path, attributes: str
) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    assert len([line for line in example.splitlines() if line.strip()]) <= 20
    (package / "your_dataset.py").write_text(example.replace("num_classes, image_channels = 3, 3", attributes))
    (package / "your_transforms.py").write_text(AUGMENTATION)
    write_slides(Path("slides"))
    dataset = load_dataset("your_package.your_dataset", "val", {"path": "slides"})
    (batch,) = evaluation_batches(dataset, [0, 1, 2, 3], 4, workers=0)
    assert batch.present.sum(1).tolist() == [2, 3, 2, 3]
    assert (batch.images.min() < -0.9) and (batch.images.max() > 0.9)
    data = ["dataset_file=your_package.your_dataset", "dataset_params.path=slides"]
    pipeline = "dataset_pipeline_train=[flip, your_package.your_transforms.invert]"
    ddpm_train.main(tiny.train_argv(None, Path("run"), *data, pipeline))
    ddpm_eval.main(tiny.eval_argv(Path("run/last.pt"), Path("evaluation"), data[0], "dataset_split=val"))
    assert evaluated_images(Path("evaluation")) == 4


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
    recipe = load_settings(TrainSettings, [str(tiny.ROOT / "params.yml"), f"dataset_file={dataset_file}"], "")
    edited = tmp_path / "params.yml"
    text = (tiny.ROOT / "params.yml").read_text()
    edited.write_text(text.replace("dataset_file: datasets.synthetic", f"dataset_file: {dataset_file}", 1))
    assert load_settings(TrainSettings, [str(edited)], "") == recipe
    assert (recipe.batch_size, recipe.polyak_alpha) == (batch_size, polyak_alpha)
    assert recipe.network_params["base_channels"] == base_channels
    assert (recipe.optim.learning_rate, recipe.optim.lr_params.min_lr) == (1e-4, 1e-6)
