"""Whatever the input: a result or a `UserError`, never a traceback, half an output, or code run from a file.

Each input goes through a script's own `main(argv)`. What is cut short is what takes long once the input is accepted:
the training itself and the scoring.
"""

import contextlib
import os
import pickle
import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
import yaml
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import ddpm_eval
import ddpm_train
from datasets import prepare_lidc
from models import official
from tests import tiny
from tests.datasets.trees import CROPS, pickle_entries, write_crops, write_pickle
from tests.faults.conftest import LONG
from tests.utils.test_checkpoint import TouchesAFile
from utils.config import all_keys
from utils.errors import UserError
from utils.schema import EvalSettings, TrainSettings

TIMES = 25 if LONG else 1
Main = Callable[[Sequence[str]], object]


def inputs(number: int) -> Any:
    """How many inputs a test makes up; the same ones every time."""
    return settings(
        max_examples=number * TIMES, deadline=None, database=None, derandomize=not LONG,
        phases=[Phase.generate], suppress_health_check=list(HealthCheck),
    )  # fmt: skip


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory, finished_run: Path) -> Iterator[Path]:
    """A folder to work in, with the long parts of the scripts cut short and a trap that no input may touch."""
    folder = tmp_path_factory.mktemp("fuzz")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ddpm_train.Training, "run", lambda self: True)
        patch.setattr(ddpm_eval, "score_distribution", lambda *_: None)
        patch.chdir(folder)
        yield folder
    assert not trap(folder).exists()


def trap(folder: Path) -> Path:
    """What comes into being where code in a file is run."""
    return folder / "trap"


def survives(main: Main, argv: Sequence[str], bench: Path) -> bool:
    """Whether the script accepted the input; anything but a `UserError` goes through."""
    try:
        main(list(argv))
        accepted = True
    except UserError as error:
        assert str(error)
        accepted = False
    assert not trap(bench).exists(), "code was run"
    assert list(bench.rglob(".*.tmp")) == [], "half an output"
    return accepted


plain = st.one_of(
    st.none(), st.booleans(), st.sampled_from([-1, 0, 1, 2, 3, 7, 33, 64, 10**6, 2**31, 2**63, 10**30]),
    st.floats(), st.text(max_size=8),
    st.sampled_from(["auto", "cpu", "cuda:7", "dino", "weighted", "single_jump", "1e-4", "~", "${X}", ".", "\0"]),
)  # fmt: skip
values = st.recursive(
    plain,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=5,
)
TRAPS = [
    "!!python/object/apply:os.mkdir [trap]", "!!python/object/new:os.mkdir [trap]", "!!python/name:os.system",
    "&a [*a]", "{<<: *b}", "[" * 500, "0x", "1_000", "2024-13-45", "!!binary x", "? x", "- - : -", "\t", "%YAML 9",
]  # fmt: skip


def overrides(schema: Any) -> st.SearchStrategy[list[str]]:
    """Some `key=value`, most with keys that exist."""
    keys = st.sampled_from(all_keys(schema)) | st.text(max_size=10)
    written = values.map(lambda value: yaml.safe_dump(value, default_flow_style=True).removesuffix("...\n").strip())
    texts = written | st.sampled_from(TRAPS) | st.text(max_size=12)
    return st.lists(st.builds(lambda key, text: f"{key}={text}", keys, texts), min_size=1, max_size=3)


def harmless(changes: list[str]) -> bool:
    """Whether a path among the changes stays in the working folder."""
    return not any(change.startswith(("output_path=/", "evaluation_path=/")) for change in changes)


@given(changes=overrides(TrainSettings).filter(harmless))
@inputs(500)
def test_command_line_of_training(bench: Path, data_folder: Path, changes: list[str]) -> None:
    survives(ddpm_train.main, tiny.train_argv(data_folder, bench / "run", *changes), bench)


@given(changes=overrides(EvalSettings).filter(harmless))
@inputs(300)
def test_command_line_of_evaluation(bench: Path, finished_run: Path, changes: list[str]) -> None:
    argv = tiny.eval_argv(finished_run / "last.pt", bench / "evaluation", "n_validation_images=0", *changes)
    survives(ddpm_eval.main, argv, bench)


@given(
    text=st.one_of(
        st.text(max_size=60),
        values.map(yaml.safe_dump),
        st.sampled_from(TRAPS).map(lambda text: f"dataset_file: {text}\n"),
        st.dictionaries(st.sampled_from(all_keys(TrainSettings)), values, max_size=4).map(yaml.safe_dump),
    ).map(str.encode)
    | st.binary(max_size=40)
)
@inputs(400)
def test_settings_file(bench: Path, text: bytes) -> None:
    path = bench / "settings.yml"
    path.write_bytes(text)
    for main in (ddpm_train.main, ddpm_eval.main):
        survives(main, [str(path), "load_from=nowhere.pt", "output_path=run", "batch_size=2", "device=cpu"], bench)


def changed(whole: bytes, seed: int) -> bytes:
    """Some bytes changed, a stretch cut out, or the end cut off."""
    generator = random.Random(seed)
    how, place = generator.randrange(3), generator.randrange(len(whole))
    if how == 0:
        return whole[:place]
    if how == 1:
        return whole[:place] + whole[place + generator.randrange(1, 100) :]
    damaged = bytearray(whole)
    for _ in range(generator.choice([1, 1, 5, 50])):
        damaged[generator.randrange(len(whole))] = generator.randrange(256)
    return bytes(damaged)


seeds = st.integers(0, 2**32)


@given(seed=seeds)
@inputs(250)
def test_checkpoint_with_other_bytes(bench: Path, finished_run: Path, data_folder: Path, seed: int) -> None:
    path = bench / "changed.pt"
    path.write_bytes(changed((finished_run / "last.pt").read_bytes(), seed))
    survives(official.main, [str(path)], bench)
    survives(ddpm_train.main, tiny.train_argv(data_folder, bench / "run", f"load_from={path}"), bench)


parts = st.lists(st.sampled_from(["settings", "network", "process", "model", "average", "optimizer", "step", "best",
                                  "num_averaged", "validated", "bad_steps", "format_version", "encoder"]),
                 min_size=1, max_size=2)  # fmt: skip


@given(names=parts, new=values | st.builds(torch.zeros, st.integers(0, 3)), inside=st.booleans())
@inputs(200)
def test_checkpoint_with_other_contents(
    bench: Path, finished_run: Path, data_folder: Path, names: list[str], new: Any, inside: bool
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
    survives(ddpm_train.main, tiny.train_argv(data_folder, bench / "run", f"load_from={path}"), bench)
    survives(ddpm_eval.main, tiny.eval_argv(path, bench / "evaluation", "n_validation_images=0"), bench)


@given(seed=seeds, protocol=st.integers(0, 5))
@inputs(200)
def test_pickle_with_other_bytes(bench: Path, seed: int, protocol: int) -> None:
    source, out = bench / "changed.pickle", bench / "prepared" / "out.hdf5"
    source.write_bytes(changed(pickle.dumps(pickle_entries(5, 1, 4), protocol), seed))
    prepared(source, out, bench)


entries = st.dictionaries(
    st.sampled_from(["image", "masks", "series_uid", "more"]),
    values | st.builds(np.zeros, st.tuples(st.integers(0, 3), st.integers(0, 3))),
    max_size=4,
)


@given(contents=values | st.dictionaries(st.text(max_size=4), entries | values, max_size=3), with_trap=st.booleans())
@inputs(200)
def test_pickle_with_other_contents(bench: Path, contents: Any, with_trap: bool) -> None:
    source, out = bench / "other.pickle", bench / "prepared" / "out.hdf5"
    write_pickle(source, [contents, TouchesAFile(trap(bench))] if with_trap else contents)
    prepared(source, out, bench)


def prepared(source: Path, out: Path, bench: Path) -> None:
    """Prepare an HDF5; it is complete, or not there."""
    if survives(prepare_lidc.main, [str(source), str(out)], bench):
        with h5py.File(out) as file:
            assert set(file) == {"train", "val", "test"}
    shutil.rmtree(out.parent, ignore_errors=True)


@pytest.fixture(scope="module")
def crops(bench: Path) -> Path:
    """A tree of small crops."""
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
    prepared(tree, bench / "prepared" / "out.hdf5", bench)
    shutil.rmtree(tree)


@given(
    shapes=st.lists(st.lists(st.integers(0, 3), max_size=4), min_size=3, max_size=3),
    dtypes=st.lists(st.sampled_from(["f4", "f8", "u1", "i8", "S3", "c8", "?", "f2"]), min_size=3, max_size=3),
    fill=st.sampled_from([0, 1, 2, 3, 200]),
    attribute=plain,
    left_out=st.sampled_from(["", "images", "labels", "val", "train"]),
)
@inputs(250)
def test_hdf5_of_any_layout(
    bench: Path, shapes: list[list[int]], dtypes: list[str], fill: int, attribute: Any, left_out: str
) -> None:
    path = bench / "layout.hdf5"
    with h5py.File(path, "w") as file:
        with contextlib.suppress(TypeError, ValueError, OverflowError):
            file.attrs["num_classes"] = attribute
        for split in {"train", "val"} - {left_out}:
            group = file.create_group(split)
            for name, shape, dtype in zip(("images", "labels", "uids"), shapes, dtypes, strict=True):
                if name != left_out:
                    group[name] = np.full(shape, str(fill) if dtype == "S3" else fill, dtype=dtype)
    data = ["dataset_file=datasets.lidc", f"dataset_params={{path: {path}}}", "mp_loaders=0", "class_weights=uniform"]
    survives(ddpm_train.main, tiny.train_argv(None, bench / "run", *data, "cache=memory"), bench)


@given(seed=seeds)
@inputs(150)
def test_hdf5_with_other_bytes(bench: Path, data_folder: Path, seed: int) -> None:
    path = bench / "changed.hdf5"
    (whole,) = data_folder.glob("*.hdf5")
    path.write_bytes(changed(whole.read_bytes(), seed))
    data = ["dataset_file=datasets.lidc", f"dataset_params={{path: {path}}}", "mp_loaders=0"]
    survives(ddpm_train.main, tiny.train_argv(None, bench / "run", *data, "cache=memory"), bench)


def test_real_processes_end_with_a_message(bench: Path, finished_run: Path) -> None:
    generator = random.Random(0)
    (bench / "words.yml").write_text("a: [")
    (bench / "empty.pt").write_bytes(b"")
    scripts = [[str(tiny.ROOT / "ddpm_train.py")], [str(tiny.ROOT / "ddpm_eval.py")], ["-m", "models.official"]]
    wrong = [
        "words.yml",
        "nowhere.yml",
        "a=b",
        "=",
        "load_from=empty.pt",
        "batch_size=-1",
        "device=tpu",
        "\\x00=[",
        "{}",
    ]
    for number in range(20):
        command = [sys.executable, *scripts[number % 3], *generator.sample(wrong, 2)]
        environment = {**os.environ, "PYTHONPATH": str(tiny.ROOT)}
        ended = subprocess.run(command, cwd=bench, env=environment, capture_output=True, text=True, check=False)
        assert ended.returncode == 2, command
        assert "Traceback" not in ended.stderr
        assert ended.stderr.splitlines()[-1].startswith("error: ") or "error: " in ended.stderr
