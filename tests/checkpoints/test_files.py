"""Checkpoint files: what comes back, and what is refused without being run."""

import os
import pickle
import random
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from checkpoints.files import FORMAT_VERSION, digest, find_checkpoint, load_checkpoint, newest_intact, save_checkpoint
from tests.tiny import same
from utils.errors import UserError

CONTENTS: dict[str, Any] = {
    "settings": {"seed": 3, "dataset_params": {"path": "somewhere"}, "class_weights": None},
    "network": {"channel_mult": (1, 2)},
    "process": {},
    "model": {"weight": torch.arange(6.0).view(2, 3)},
    "average": {"weight": torch.ones(2, 3, dtype=torch.float64)},
    "step": 5,
    "best": {"ged": float("inf")},
}


class TouchesAFile:
    """Unpickled without care, it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "last.pt"


@pytest.fixture
def saved(path: Path) -> Path:
    save_checkpoint(path, CONTENTS)
    return path


def refusal(path: Path) -> str:
    with pytest.raises(UserError) as error:
        load_checkpoint(path)
    message = str(error.value)
    assert path.name in message
    assert "\n" not in message
    return message


def test_contents_come_back(saved: Path) -> None:
    assert same({name: load_checkpoint(saved)[name] for name in CONTENTS}, CONTENTS)
    assert load_checkpoint(saved)["format_version"] == FORMAT_VERSION
    assert list(saved.parent.iterdir()) == [saved]


def test_checkpoint_that_lacks_a_part_is_not_written(path: Path) -> None:
    with pytest.raises(KeyError, match="average"):
        save_checkpoint(path, {name: value for name, value in CONTENTS.items() if name != "average"})
    assert not path.exists()


def test_failure_while_writing_leaves_the_checkpoint_before(saved: Path) -> None:
    before = saved.read_bytes()
    with pytest.raises((TypeError, AttributeError, pickle.PicklingError)):
        save_checkpoint(saved, {**CONTENTS, "step": lambda: 1})
    assert saved.read_bytes() == before
    assert list(saved.parent.iterdir()) == [saved]


def test_home_is_expanded(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(saved.parent))
    assert load_checkpoint("~/last.pt")["step"] == 5


def test_missing_file_and_folder_are_refused(path: Path) -> None:
    assert "there is no checkpoint" in refusal(path)
    path.mkdir()
    assert "there is no checkpoint" in refusal(path)


def test_checkpoint_cut_off_anywhere_is_refused(saved: Path) -> None:
    whole = saved.read_bytes()
    for length in [0, 1, 2, 4, 30, 100, len(whole) // 2, len(whole) - 30, len(whole) - 1]:
        saved.write_bytes(whole[:length])
        assert "damaged or cut off" in refusal(saved)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "hello world",
        "((((",
        "0.5\n",
        "seed: 0\n",
        "GG",
        "tt",
        "...",
    ],
)
def test_text_file_is_refused(path: Path, text: str) -> None:
    path.write_text(text)
    assert "not a checkpoint" in refusal(path)


def test_random_bytes_are_refused(path: Path) -> None:
    generator = random.Random(0)
    for start in [b"", b"\x80\x02"]:
        for _ in range(200):
            path.write_bytes(start + generator.randbytes(40))
            assert "not a checkpoint" in refusal(path)


def test_damaged_bytes_are_refused_or_harmless(saved: Path) -> None:
    whole, generator = saved.read_bytes(), random.Random(0)
    refused = 0
    for _ in range(200):
        damaged = bytearray(whole)
        damaged[generator.randrange(len(whole))] ^= generator.randrange(1, 256)
        saved.write_bytes(damaged)
        try:
            load_checkpoint(saved)
        except UserError:
            refused += 1
    assert refused > 0


def test_zip_file_is_refused(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("notes.txt", "no weights here")
    assert "not a checkpoint" in refusal(path)


@pytest.mark.parametrize("kind", ["pickle", "torch", "torch, old format"])
def test_code_in_a_file_is_not_run(path: Path, kind: str) -> None:
    trap = path.parent / "trap"
    contents = {"kind": "ccdm", "format_version": FORMAT_VERSION, **CONTENTS, "step": TouchesAFile(trap)}
    if kind == "pickle":
        path.write_bytes(pickle.dumps(contents, protocol=2))
    else:
        torch.save(contents, path, _use_new_zipfile_serialization=kind == "torch")
    assert "not a checkpoint" in refusal(path)
    assert not trap.exists()
    torch.load(path, weights_only=False) if kind != "pickle" else pickle.loads(path.read_bytes())
    assert trap.exists()


@pytest.mark.parametrize("contents", [{"model": {}}, {"kind": "other", **CONTENTS}, [1, 2], torch.ones(3)])
def test_file_of_another_software_is_refused(path: Path, contents: Any) -> None:
    torch.save(contents, path)
    assert "is not a checkpoint of this software" in refusal(path)


@pytest.mark.parametrize("version", [FORMAT_VERSION + 1, None, "1"])
def test_file_of_a_later_version_is_refused(path: Path, version: Any) -> None:
    torch.save({"kind": "ccdm", **CONTENTS, "format_version": version}, path)
    assert f"format version {version}; this software reads up to {FORMAT_VERSION}" in refusal(path)


def test_file_that_lacks_a_part_is_refused_by_its_name(path: Path) -> None:
    torch.save({"kind": "ccdm", "format_version": FORMAT_VERSION, "settings": {}, "model": {}, "step": 0}, path)
    assert "lacks network, process, average" in refusal(path)


def test_newest_of_a_patterns_matches_is_found(tmp_path: Path) -> None:
    for age, name in enumerate(["b", "c", "a"]):
        (tmp_path / name).mkdir()
        (tmp_path / name / "best.pt").touch()
        os.utime(tmp_path / name / "best.pt", (1000 - age, 1000 - age))
    assert find_checkpoint(f"{tmp_path}/*/best.pt") == tmp_path / "b" / "best.pt"


def test_relative_pattern_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "best.pt").touch()
    assert find_checkpoint("./logs/*.pt").resolve() == tmp_path / "logs" / "best.pt"


def test_plain_name_is_taken_as_it_is(tmp_path: Path) -> None:
    assert find_checkpoint(f"{tmp_path}/not_there.pt") == tmp_path / "not_there.pt"


def test_existing_file_whose_name_looks_like_a_pattern_is_found(tmp_path: Path) -> None:
    (tmp_path / "run[1]").mkdir()
    (tmp_path / "run[1]" / "last.pt").touch()
    assert find_checkpoint(f"{tmp_path}/run[1]/last.pt") == tmp_path / "run[1]" / "last.pt"


def test_pattern_without_a_match_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no checkpoint matches .*ddpm_train\.py"):
        find_checkpoint(f"{tmp_path}/*/best.pt")


def test_last_checkpoint_leaves_the_one_before_and_no_older(path: Path) -> None:
    for step in (1, 2, 3):
        save_checkpoint(path, {**CONTENTS, "step": step})
    assert {file.name: load_checkpoint(file)["step"] for file in path.parent.iterdir()} == {
        "last.pt": 3,
        "previous.pt": 2,
    }


def test_newest_intact_checkpoint_is_found(path: Path) -> None:
    assert newest_intact(path.parent) is None
    for step in (1, 2):
        save_checkpoint(path, {**CONTENTS, "step": step})
    assert newest_intact(path.parent) == path
    path.write_bytes(path.read_bytes()[:-100])
    assert newest_intact(path.parent) == path.with_name("previous.pt")
    path.with_name("previous.pt").write_bytes(b"")
    with pytest.raises(UserError, match="no intact checkpoint"):
        newest_intact(path.parent)


@pytest.mark.parametrize("change", [{"step": 6}, {"model": {"weight": torch.zeros(2, 3)}}, {"more": None}])
def test_contents_that_are_not_those_of_the_digest_are_refused(saved: Path, change: dict[str, Any]) -> None:
    torch.save({**load_checkpoint(saved), **change}, saved)
    assert "do not have the digest" in refusal(saved)


def test_digest_tells_types_names_and_nesting_apart() -> None:
    nests: list[Any] = [
        1,
        1.0,
        "1",
        True,
        [1],
        [[1]],
        {"a": 1},
        torch.ones(1),
        torch.ones(1, 1),
        torch.ones(1).double(),
    ]
    assert len({digest({"x": nest}) for nest in nests}) == len(nests)
    assert digest({"x": torch.ones(2, dtype=torch.bfloat16)}) == digest({"x": torch.ones(2, dtype=torch.bfloat16)})
