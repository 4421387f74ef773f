"""Every command that the documents give: the scripts' own parsers and schemas take it."""

import importlib.util
import os
import re
import shlex
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import yaml
from torch.distributed.run import get_args_parser

import ddpm_predict
from benchmarks.__main__ import parse_arguments as benchmark_options
from datasets.preparation import lidc as prepare_lidc
from tests import tiny
from utils.schema import EvalSettings, TrainSettings
from utils.settings import load_settings

DOCUMENTS = ["README.md", "CONTRIBUTING.md", "docs/benchmarks.md", "tests/faults/README.md", "docs/method.md"]


def blocks_of(document: str) -> list[tuple[str, str]]:
    """Language and text of the indented pieces."""
    return re.findall(r"^```(\w*)\n(.*?)^```", (tiny.ROOT / document).read_text(), re.DOTALL | re.MULTILINE)


def commands_of(document: str) -> list[str]:
    """The lines of the blocks that are no program text; comments are cut off, lines that go on are joined."""
    blocks = [text for language, text in blocks_of(document) if not language and not text.startswith("#!")]
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    return [line.partition("  #")[0].strip() for line in lines if line.strip()]


COMMANDS = [command for document in DOCUMENTS for command in commands_of(document)]


def settings_of_training(arguments: Sequence[str]) -> None:
    load_settings(TrainSettings, arguments, default_file="")


def settings_of_evaluation(arguments: Sequence[str]) -> None:
    load_settings(EvalSettings, arguments, default_file="")


def module(arguments: Sequence[str]) -> None:
    name, *rest = arguments
    if name == "pytest":
        assert all(option in ("-m", "slow", "faults") for option in rest)
    elif name == "benchmarks":
        benchmark_options(rest)
    elif name == "datasets.preparation.lidc":
        prepare_lidc._parser().parse_args(rest)
    else:
        assert importlib.util.find_spec(name), name


def python(arguments: Sequence[str]) -> None:
    script, *rest = arguments
    if script == "-m":
        module(rest)
    else:
        assert (tiny.ROOT / script).is_file(), script
        SCRIPTS.get(script, lambda _: None)(rest)


def torchrun(arguments: Sequence[str]) -> None:
    options = get_args_parser().parse_args(arguments)
    SCRIPTS[options.training_script](options.training_script_args)


def nothing_to_check(arguments: Sequence[str]) -> None:
    """A program of somebody else, or one that the checks themselves run."""


SCRIPTS: dict[str, Callable[[Sequence[str]], None]] = {
    "ddpm_train.py": settings_of_training,
    "ddpm_eval.py": settings_of_evaluation,
    "ddpm_predict.py": ddpm_predict.parse,
}
PROGRAMS: dict[str, Callable[[Sequence[str]], None]] = {
    "python": python,
    "torchrun": torchrun,
    **dict.fromkeys(["pip", "ruff", "mypy", "csEvalPixelLevelSemanticLabeling"], nothing_to_check),
}


@pytest.fixture(autouse=True)
def at_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where users type."""
    monkeypatch.chdir(tiny.ROOT)


@pytest.mark.parametrize("command", COMMANDS)
def test_command_is_one_that_the_software_takes(command: str) -> None:
    words = shlex.split(command)
    while "=" in words[0]:  # environment variables
        words.pop(0)
    PROGRAMS[words[0]](words[1:])


def test_a_command_with_a_mistake_would_be_found() -> None:
    for wrong in ("python ddpm_train.py params.yml bach_size=8", "python ddpm_train.yp", "python -m nowhere"):
        with pytest.raises((ValueError, AssertionError)):
            test_command_is_one_that_the_software_takes(wrong)


def test_script_for_slurm_is_one_that_bash_and_torchrun_take(tmp_path: Path) -> None:
    (script,) = (text for _, text in blocks_of("README.md") if text.startswith("#!/bin/bash"))
    (tmp_path / "job.sh").write_text(script)
    subprocess.run(["bash", "-n", tmp_path / "job.sh"], check=True)
    (launch,) = re.findall(r"exec torchrun (.*?)'", script.replace("\\\n", " "), re.DOTALL)
    torchrun(shlex.split(launch.replace("$SLURM_NNODES", "2")))


@pytest.mark.parametrize("document", [*DOCUMENTS, "CHANGELOG.md"])
def test_links_lead_somewhere(document: str) -> None:
    folder = (tiny.ROOT / document).parent
    links = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", (tiny.ROOT / document).read_text())
    missing = [link for link in links if "://" not in link and not os.path.exists(folder / link)]
    assert missing == []


def test_shipped_settings_say_what_the_schema_says() -> None:
    for recipe in yaml.safe_load(Path("params.yml").read_text())["recipes"]:
        settings_of_training(["params.yml", f"dataset_file={recipe}"])
