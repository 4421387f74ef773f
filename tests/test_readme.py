"""Every command and settings example in the documents is accepted by the parsers and schemas of the software."""

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
from benchmarks.__main__ import parse_arguments
from datasets.preparation import lidc
from evaluation.inspect_data import InspectionSettings
from evaluation.settings import EvalSettings
from tests import tiny
from training.settings import TrainSettings
from utils.config import validate
from utils.settings import load_settings, settings_from_arguments

DOCUMENTS = [
    "README.md",
    "tests/faults/README.md",
    *sorted(f"docs/{path.name}" for path in (tiny.ROOT / "docs").glob("*.md")),
]
README_LINES = 180


def blocks(document: str) -> list[tuple[str, str]]:
    """Language and text of every fenced block."""
    return re.findall(r"^```(\w*)\n(.*?)^```", (tiny.ROOT / document).read_text(), re.DOTALL | re.MULTILINE)


def commands(document: str) -> list[str]:
    """The lines of the blocks without a language, without comments and with continued lines joined."""
    texts = [text for language, text in blocks(document) if not language and not text.startswith("#!")]
    lines = [line for text in texts for line in text.replace("\\\n", " ").splitlines()]
    return [line.partition("  #")[0].strip() for line in lines if line.strip()]


def script_commands(script: Path) -> list[str]:
    """The Python commands of a shell script."""
    return re.findall(r"^python .*", script.read_text().replace("\\\n", " "), re.MULTILINE)


COMMANDS = list(dict.fromkeys(command for document in DOCUMENTS for command in commands(document)))
COMMANDS += [command for script in sorted((tiny.ROOT / "runs").glob("*.sh")) for command in script_commands(script)]


def check_training(arguments: Sequence[str]) -> None:
    load_settings(TrainSettings, arguments, default_file="")


def check_evaluation(arguments: Sequence[str]) -> None:
    load_settings(EvalSettings, arguments, default_file="")


def check_module(arguments: Sequence[str]) -> None:
    name, *rest = arguments
    if name == "pytest":
        assert all(option in ("-m", "slow", "faults") for option in rest)
    elif name == "benchmarks":
        parse_arguments(rest)
    elif name == "datasets.preparation.lidc":
        lidc._parser().parse_args(rest)
    elif name == "evaluation.inspect_data":
        settings_from_arguments(InspectionSettings, rest)
    elif name == "training.diagnose":
        assert rest[0].startswith("logs/")
        check_training(["params.yml", *rest[1:]])
    else:
        assert importlib.util.find_spec(name), name


def check_python(arguments: Sequence[str]) -> None:
    script, *rest = arguments
    if script == "-m":
        check_module(rest)
    else:
        assert (tiny.ROOT / script).is_file(), script
        SCRIPTS.get(script, accept)(rest)


def check_torchrun(arguments: Sequence[str]) -> None:
    options = get_args_parser().parse_args(arguments)
    SCRIPTS[options.training_script](options.training_script_args)


def accept(arguments: Sequence[str]) -> None:
    """Other software, or scripts without arguments."""


SCRIPTS: dict[str, Callable[[Sequence[str]], object]] = {
    "ddpm_train.py": check_training,
    "ddpm_eval.py": check_evaluation,
    "ddpm_predict.py": ddpm_predict.parse,
}
PROGRAMS: dict[str, Callable[[Sequence[str]], None]] = {
    "python": check_python,
    "torchrun": check_torchrun,
    **dict.fromkeys(["pip", "ruff", "mypy", "csEvalPixelLevelSemanticLabeling"], accept),
}


@pytest.fixture(autouse=True)
def root_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    """The commands are meant for the root of the repository."""
    monkeypatch.chdir(tiny.ROOT)


@pytest.mark.parametrize("command", COMMANDS)
def test_command_is_accepted(command: str) -> None:
    words = shlex.split(command)
    while "=" in words[0]:  # environment variables
        words.pop(0)
    PROGRAMS[words[0]](words[1:])


@pytest.mark.parametrize(
    "command", ["python ddpm_train.py params.yml bach_size=8", "python ddpm_train.yp", "python -m nowhere"]
)
def test_wrong_command_is_found(command: str) -> None:
    with pytest.raises((ValueError, AssertionError)):
        test_command_is_accepted(command)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_settings_examples_are_valid(document: str) -> None:
    for language, text in blocks(document):
        if language == "yaml":
            settings = yaml.safe_load(text)
            for recipe in settings.pop("recipes", {"": {}}).values():
                validate(TrainSettings, settings | recipe, document)


def test_slurm_script_is_accepted_by_bash_and_torchrun(tmp_path: Path) -> None:
    (script,) = (text for _, text in blocks("docs/running.md") if text.startswith("#!/bin/bash"))
    (tmp_path / "job.sh").write_text(script)
    subprocess.run(["bash", "-n", tmp_path / "job.sh"], check=True)
    (launch,) = re.findall(r"exec torchrun (.*?)'", script.replace("\\\n", " "), re.DOTALL)
    check_torchrun(shlex.split(launch.replace("$SLURM_NNODES", "2")))


@pytest.mark.parametrize("document", [*DOCUMENTS, "CHANGELOG.md"])
def test_links_exist(document: str) -> None:
    text, folder = (tiny.ROOT / document).read_text(), (tiny.ROOT / document).parent
    for link, _, section in re.findall(r"\]\(([^)#\s]*)(#([^)]*))?\)", text):
        if "://" in link:
            continue
        path = folder / link.replace("\\", "") if link else tiny.ROOT / document
        assert os.path.exists(path), link
        assert not section or section in anchors(path.read_text()), f"{link}#{section}"


def anchors(text: str) -> list[str]:
    """The anchors that GitHub gives to the headings of a document."""
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return [re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings]


def test_readme_is_short() -> None:
    assert len((tiny.ROOT / "README.md").read_text().splitlines()) <= README_LINES
