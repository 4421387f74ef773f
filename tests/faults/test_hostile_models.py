"""Hostile checkpoints and settings; see `tests.faults.hostile`."""

import contextlib
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from checkpoints.model import build_model
from checkpoints.official import load_model_file
from checkpoints.preprocessing import Preprocessing
from datasets import load_dataset, synthetic
from datasets.contract import check_item
from evaluation.classes import ClassTable
from evaluation.settings import EvalSettings
from models.build import build_process
from tests import tiny
from tests.datasets.trees import CROPS, write_cityscapes, write_crops, write_png
from tests.faults.hostile import FACTOR, OTHER, PLAIN, TENSORS, attack, mutated, mutated_bytes, written
from tests.tiny import lesion_columns, write_hdf5
from training.model import model_config
from training.schedule import Schedule
from training.settings import TrainSettings
from training.state import TrainState
from utils.errors import corrupt_file_as_user_error, os_errors_as_user_error
from utils.settings import load_settings


@pytest.fixture
def state(finished_run: Path) -> TrainState:
    """A training that checkpoints are resumed into."""
    settings = load_settings(TrainSettings, tiny.train_argv(None, finished_run), "")
    return TrainState(tiny.model(), settings, Schedule(settings, 12), {})


def use_checkpoint(path: Path, state: TrainState) -> None:
    """What evaluation, prediction and training do with a checkpoint."""
    contents = load_model_file(path)
    build_model(contents)
    ClassTable.from_preprocessing(2, Preprocessing.from_checkpoint(contents))
    json.dumps(contents["settings"], allow_nan=False)
    with corrupt_file_as_user_error(path):
        state.load_state_dict(contents)


def test_checkpoints_with_other_contents(workplace: Path, finished_run: Path, state: TrainState) -> None:
    ours = torch.load(finished_run / "last.pt", weights_only=True)
    del ours["digest"]
    official = {"model": tiny.model().network.state_dict(), "average_model": tiny.model().network.state_dict()}

    def make(generator: random.Random, folder: Path) -> Path:
        contents = generator.choice([ours, ours, {**ours, "format_version": 1}, official])
        torch.save(mutated(contents, generator, [*PLAIN, *OTHER, *TENSORS]), folder / "x.pt")
        return folder / "x.pt"

    attack("contents", 150 * FACTOR, make, lambda path: use_checkpoint(path, state), workplace)


def test_checkpoints_with_other_bytes(workplace: Path, finished_run: Path, state: TrainState) -> None:
    whole = (finished_run / "last.pt").read_bytes()
    torch.save(torch.load(finished_run / "last.pt"), workplace / "old.pt", _use_new_zipfile_serialization=False)
    files = [whole, (workplace / "old.pt").read_bytes()]
    attack(
        "checkpoint", 100 * FACTOR,
        lambda generator, folder: written(folder / "x.pt", mutated_bytes(generator.choice(files), generator)),
        lambda path: use_checkpoint(path, state), workplace,
    )  # fmt: skip


TRAPS = [
    "!!python/object/apply:os.mkdir [trap]", "!!timestamp x", "!!bool x", "!!int ''", "!!float x", "!!set {a, b}",
    "!!omap [a: 1]", "!!pairs [a: 1]", "!!binary x", "!!null x", "!x y", "&a [*a]", "{<<: *b}", "[" * 900, "{? ", "*",
    "0o7", "0x", "1:2:3", "1:" * 600 + "1", "9" * 900, "2024-13-45", ".inf", ".nan", "~", "%YAML 9", "'", "\t", "\0",
]  # fmt: skip


def test_settings(workplace: Path) -> None:
    schemas = {schema: (tiny.ROOT / name).read_text() for schema, name in
               ((TrainSettings, "params.yml"), (EvalSettings, "params_eval.yml"))}  # fmt: skip

    def make(generator: random.Random, folder: Path) -> tuple[Any, list[str]]:
        schema = generator.choice([*schemas])
        text, how = schemas[schema].encode(), generator.randrange(3)
        if how == 0:
            text = mutated_bytes(text, generator)
        elif how == 1:
            tree = mutated(yaml.safe_load(text), generator, [*PLAIN, *OTHER[:4], *OTHER[5:7]])
            with contextlib.suppress(yaml.YAMLError):
                text = yaml.safe_dump(tree).encode(errors="surrogatepass")
        keys = [*schema.model_fields, "process_params.time_steps", "network_params", "optim.lr_params", "a.b", ""]
        words = [str(value) for value in PLAIN] + TRAPS
        overrides = [f"{generator.choice(keys)}={generator.choice(words)}" for _ in range(2 if how == 2 else 0)]
        return schema, [str(written(folder / "x.yml", text)), *overrides]

    def read(given: tuple[Any, list[str]]) -> None:
        settings = load_settings(*given, default_file="")
        yaml.safe_dump(settings.model_dump(mode="json"))
        if isinstance(settings, TrainSettings):
            Schedule(settings, 100)
            config = model_config(settings, 2, 1)
            if config.process.module == "diffusion.uniform":
                settings.sampling.resolve(build_process(config.process))

    attack("settings", 120 * FACTOR, make, read, workplace)


def test_arguments_of_datasets(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(synthetic, "SPLIT_SIZES", {"train": 2})
    inside = workplace / "inside"
    inside.mkdir()
    write_crops(inside, CROPS, side=128)
    write_cityscapes(inside, "train", {"aachen_000000_000019": np.full((16, 32), 7)})
    for part in ("images", "labels"):
        write_png(inside / "train" / part / "x.png", np.eye(9))
    write_hdf5(inside / "data.hdf5", {"train": lesion_columns(2)})
    arguments: dict[str, dict[str, Any]] = {
        "synthetic": {"side": 8, "seed": 0, "create": True},
        "folder": {"size": [8, 8], "window": [0, 9], "image_channels": 1, "class_ids": [0, 1], "void_class": None},
        "lidc": {"num_classes": 2, "image_range": [0, 1]},
        "lidc_crops": {"whole": True},
        "cityscapes": {"size": [16, 32], "original_labels": True},
    }

    def make(generator: random.Random, folder: Path) -> tuple[str, dict[str, Any]]:
        name = generator.choice([*arguments])
        params = mutated(arguments[name], generator, [*PLAIN, *OTHER])
        path = str(folder / "data.hdf5" if name == "lidc" else folder)
        usable = isinstance(params, dict) and all(isinstance(key, str) for key in params)
        return name, {**(params if usable else {}), "path": generator.choice([path] * 9 + [3, "", "\0", "x" * 5000])}

    def read(given: tuple[str, dict[str, Any]]) -> None:
        with os_errors_as_user_error("the data"):
            dataset = load_dataset(f"datasets.{given[0]}", "train", given[1])
            check_item(dataset[0], dataset, 0)

    attack("arguments", 80 * FACTOR, make, read, workplace)
