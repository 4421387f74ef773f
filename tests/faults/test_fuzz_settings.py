"""Any settings lead to a result or a `UserError`, never to a traceback or an incomplete output.

Each input goes through the `main(argv)` of a script.
"""

import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml
from hypothesis import given
from hypothesis import strategies as st

import ddpm_eval
import ddpm_train
from evaluation.settings import EvalSettings
from tests import tiny
from tests.faults.fuzzing import TRAPS, inputs, survives, values
from training.settings import TrainSettings
from utils.config import all_keys


def overrides(schema: Any) -> st.SearchStrategy[list[str]]:
    """Some `key=value`, mostly with existing keys."""
    keys = st.sampled_from(all_keys(schema)) | st.text(max_size=10)
    written = values.map(lambda value: yaml.safe_dump(value, default_flow_style=True).removesuffix("...\n").strip())
    texts = written | st.sampled_from(TRAPS) | st.text(max_size=12)
    return st.lists(st.builds(lambda key, text: f"{key}={text}", keys, texts), min_size=1, max_size=3)


def harmless(changes: list[str]) -> bool:
    """Whether all paths among the changes lie in the working folder."""
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


def test_real_processes_end_with_a_message(bench: Path, finished_run: Path) -> None:
    generator = random.Random(0)
    (bench / "words.yml").write_text("a: [")
    (bench / "empty.pt").write_bytes(b"")
    scripts = [[str(tiny.ROOT / "ddpm_train.py")], [str(tiny.ROOT / "ddpm_eval.py")], ["-m", "checkpoints.official"]]
    wrong = ["words.yml", "nowhere.yml", "a=b", "=", "load_from=empty.pt", "batch_size=-1", "device=tpu"]
    wrong += ["\\x00=[", "{}"]
    for number in range(20):
        command = [sys.executable, *scripts[number % 3], *generator.sample(wrong, 2)]
        environment = {**os.environ, "PYTHONPATH": str(tiny.ROOT)}
        ended = subprocess.run(command, cwd=bench, env=environment, capture_output=True, text=True, check=False)
        assert ended.returncode == 2, command
        assert "Traceback" not in ended.stderr
        assert ended.stderr.splitlines()[-1].startswith("error: ") or "error: " in ended.stderr
