"""Any file leads to a result or a `UserError`, never to a traceback, an incomplete output, or code that is executed.

Each input goes through the `main(argv)` of a script.
"""

import random
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import ddpm_eval
import ddpm_predict
import ddpm_train
from checkpoints import official
from datasets import lidc_crops
from prediction import load_model
from tests import tiny
from tests.datasets.trees import CROPS, write_crops
from tests.faults.fuzzing import changed, inputs, seeds, survives, values

PREDICTION_OPTIONS = [
    "--tile=4", "--tile=0", "--steps=51", "--sampler=ddpm", "--sampler=ddim", "--num-samples=-1", "--seed=x", "[", "*",
    "--weights=no.pth", "--network=os", "--device=tpu", "--out=pictures/x.png", "--what", "pictures", "nowhere.png",
]  # fmt: skip


@given(seed=seeds)
@inputs(250)
def test_checkpoint_with_other_bytes(bench: Path, finished_run: Path, data_folder: Path, seed: int) -> None:
    path = bench / "changed.pt"
    path.write_bytes(changed((finished_run / "last.pt").read_bytes(), seed))
    survives(official.main, [str(path)], bench)
    survives(
        ddpm_train.main, tiny.train_argv(data_folder, bench / "run", f"load_from={path}", "train_for=6 epochs"), bench
    )


ENTRIES = [
    "settings", "network", "process", "encoder", "preprocessing", "model", "average", "num_averaged", "optimizer",
    "step", "best", "validated", "nonfinite_steps", "format_version",
]  # fmt: skip


@given(
    names=st.lists(st.sampled_from(ENTRIES), min_size=1, max_size=2),
    new=values | st.builds(torch.zeros, st.integers(0, 3)),
    inside=st.booleans(), setting=st.sampled_from(["load_from", "init_from"]),
)  # fmt: skip
@inputs(200)
def test_checkpoint_with_other_contents(
    bench: Path, finished_run: Path, data_folder: Path, names: list[str], new: Any, inside: bool, setting: str
) -> None:
    contents = torch.load(finished_run / "last.pt", weights_only=True)
    contents.pop("digest")
    for name in names:
        if inside and isinstance(contents.get(name), dict) and contents[name]:
            contents[name][sorted(contents[name])[0]] = new
        else:
            contents[name] = new
    path = bench / "other.pt"
    torch.save(contents, path)
    survives(
        ddpm_train.main, tiny.train_argv(data_folder, bench / "run", f"{setting}={path}", "train_for=6 epochs"), bench
    )
    survives(ddpm_eval.main, tiny.eval_argv(path, bench / "evaluation", "n_validation_images=0"), bench)
    survives(lambda argv: load_model(argv[0], "cpu"), [str(path)], bench)


@pytest.fixture(scope="module")
def crops(bench: Path) -> Path:
    """A folder of LIDC crops."""
    return write_crops(bench / "crops", CROPS, side=128)


@given(seed=seeds, fate=st.sampled_from(["changed", "gone", "folder", "renamed"]))
@inputs(60)
def test_tree_of_pictures(bench: Path, crops: Path, seed: int, fate: str) -> None:
    tree = bench / "tree"
    shutil.copytree(crops, tree)
    generator = random.Random(seed)
    path = generator.choice(sorted(tree.rglob("*.png")))
    whole = path.read_bytes()
    path.unlink()
    if fate == "changed":
        path.write_bytes(changed(whole, seed))
    elif fate == "folder":
        path.mkdir()
    elif fate == "renamed":
        path.with_name(generator.choice(["x.png", "_l.png", "z_l99999999999999999999.png", ".png"])).write_bytes(whole)
    survives(read_crops, [str(tree)], bench)
    shutil.rmtree(tree)


def read_crops(argv: Sequence[str]) -> None:
    """Read every item."""
    for split in ("train", "val", "test"):
        dataset = lidc_crops.get_dataset(split, argv[0])
        for index in range(len(dataset)):
            dataset[index]


PICTURES = ["grey.png", "colour.jpg", "wide.npy", "tall.tiff"]


@pytest.fixture(scope="module")
def whole_pictures(bench: Path) -> dict[str, bytes]:
    """A picture of each kind."""
    values, made = np.random.default_rng(0).integers(256, size=(9, 8, 3), dtype=np.uint8), {}
    for name in PICTURES:
        path = bench / name
        if path.suffix == ".npy":
            np.save(path, values[..., 0] / 255)
        else:
            Image.fromarray(values if name.startswith("colour") else values[..., 0]).save(path)
        made[name] = path.read_bytes()
        path.unlink()
    return made


@given(seed=seeds, name=st.sampled_from(PICTURES), options=st.lists(st.sampled_from(PREDICTION_OPTIONS), max_size=3))
@inputs(120)
def test_pictures_and_options_of_prediction(
    bench: Path, finished_run: Path, whole_pictures: dict[str, bytes], seed: int, name: str, options: list[str]
) -> None:
    path = bench / "pictures" / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(changed(whole_pictures[name], seed) if seed % 8 else whole_pictures[name])
    words = [word for option in options for word in option.split()]
    survives(
        predicted,
        [str(finished_run / "last.pt"), str(path), "--num-samples=1", "--steps=1", "--out=predicted", *words],
        bench,
    )
    shutil.rmtree(path.parent)


def predicted(argv: Sequence[str]) -> None:
    """Predict; skipping the image is allowed."""
    try:
        ddpm_predict.main(argv)
    except SystemExit as ended:
        assert ended.code == ddpm_predict.EXIT_SOME_SKIPPED
