"""Checkpoint files: what is saved is loaded, and anything else is refused without executing it."""

import os
import pickle
import random
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from checkpoints.files import (
    FORMAT_VERSION,
    copy_checkpoint,
    digest,
    find_checkpoint,
    load_checkpoint,
    newest_intact,
    save_checkpoint,
)
from tests.tiny import same
from utils.errors import UserError

CONTENTS: dict[str, Any] = {
    "settings": {"seed": 3, "dataset_params": {"path": "somewhere"}, "class_weights": None},
    "network": {"module": "models.unet", "params": {"num_classes": 2, "image_channels": 1, "channel_mult": (1, 2)}},
    "preprocessing": {"image_mean": [0.5], "image_std": [0.5]},
    "process": {"module": "diffusion.uniform"},
    "model": {"weight": torch.arange(6.0).view(2, 3)},
    "average": {"weight": torch.ones(2, 3, dtype=torch.float64)},
    "step": 5,
    "best": {"ged": float("inf")},
}
HEADER = {"kind": "ccdm", "format_version": FORMAT_VERSION}


class TouchesAFile:
    """Creates a folder when it is unpickled by an unrestricted unpickler."""

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


def test_contents_come_back(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = load_checkpoint(saved)
    assert same({name: loaded[name] for name in CONTENTS}, CONTENTS)
    assert loaded["format_version"] == FORMAT_VERSION
    assert list(saved.parent.iterdir()) == [saved]
    monkeypatch.setenv("HOME", str(saved.parent))
    assert same(load_checkpoint("~/last.pt"), loaded)


def test_checkpoint_that_lacks_an_entry_is_not_written(path: Path) -> None:
    with pytest.raises(KeyError, match="average"):
        save_checkpoint(path, {name: value for name, value in CONTENTS.items() if name != "average"})
    assert not path.exists()


def test_failure_while_writing_leaves_the_previous_checkpoint(saved: Path) -> None:
    before = saved.read_bytes()
    with pytest.raises((TypeError, AttributeError, pickle.PicklingError)):
        save_checkpoint(saved, {**CONTENTS, "step": lambda: 1})
    assert saved.read_bytes() == before
    assert list(saved.parent.iterdir()) == [saved]


@pytest.mark.parametrize("links", [True, False])
def test_copy_keeps_its_contents_and_moves_the_last_checkpoint_aside(
    saved: Path, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    def refused(*_: Any) -> None:
        raise OSError("no links here")

    if not links:
        monkeypatch.setattr(os, "link", refused)
    best = saved.with_name("best_ged.pt")
    save_checkpoint(best, CONTENTS | {"step": 8})
    copy_checkpoint(best, saved)
    assert best.samefile(saved) == links
    save_checkpoint(best, CONTENTS | {"step": 9})
    steps = [load_checkpoint(saved.with_name(name))["step"] for name in ("previous.pt", "last.pt", "best_ged.pt")]
    assert steps == [CONTENTS["step"], 8, 9]


def test_missing_file_and_folder_are_refused(path: Path) -> None:
    assert "there is no checkpoint" in refusal(path)
    path.mkdir()
    assert "there is no checkpoint" in refusal(path)


def test_truncated_checkpoint_is_refused(saved: Path) -> None:
    whole = saved.read_bytes()
    for length in [0, 1, 2, 4, 30, 100, len(whole) // 2, len(whole) - 30, len(whole) - 1]:
        saved.write_bytes(whole[:length])
        assert "damaged or truncated" in refusal(saved)


@pytest.mark.parametrize("text", ["", "hello world", "((((", "0.5\n", "seed: 0\n", "GG", "tt", "..."])
def test_text_file_is_refused(path: Path, text: str) -> None:
    path.write_text(text)
    assert "not a checkpoint" in refusal(path)


def test_random_bytes_and_other_archives_are_refused(path: Path) -> None:
    generator = random.Random(0)
    for start in [b"", b"\x80\x02"]:
        for _ in range(200):
            path.write_bytes(start + generator.randbytes(40))
            assert "not a checkpoint" in refusal(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("notes.txt", "no weights here")
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


def test_lack_of_memory_and_permission_are_not_called_damage(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(error: Exception) -> None:
        def load(*_: Any, **__: Any) -> None:
            raise error

        monkeypatch.setattr(torch, "load", load)

    fail(MemoryError())
    with pytest.raises(MemoryError):
        newest_intact(saved.parent)
    fail(PermissionError(13, "Permission denied"))
    assert refusal(saved).endswith("last.pt cannot be read: Permission denied")


@pytest.mark.parametrize("kind", ["pickle", "torch", "torch, old format"])
def test_code_in_a_file_is_not_executed(path: Path, kind: str) -> None:
    trap = path.parent / "trap"
    contents = {**HEADER, **CONTENTS, "step": TouchesAFile(trap)}
    if kind == "pickle":
        path.write_bytes(pickle.dumps(contents, protocol=2))
    else:
        torch.save(contents, path, _use_new_zipfile_serialization=kind == "torch")
    assert "cannot be read safely: it refers to" in refusal(path)
    assert not trap.exists()
    torch.load(path, weights_only=False) if kind != "pickle" else pickle.loads(path.read_bytes())
    assert trap.exists()


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        ({"model": {}}, "is not a checkpoint of this software"),
        ({"kind": "other", **CONTENTS}, "is not a checkpoint of this software"),
        ([1, 2], "is not a checkpoint of this software"),
        (torch.ones(3), "is not a checkpoint of this software"),
        ({**HEADER, **CONTENTS, "format_version": 3}, "format version 3; this software reads versions 1 to 2"),
        ({**HEADER, **CONTENTS, "format_version": None}, "format version None"),
        ({**HEADER, **CONTENTS, "format_version": "1"}, "format version 1; this"),
        ({**HEADER, "settings": {}, "model": {}, "step": 0}, "lacks network, process, average"),
    ],
)
def test_file_with_other_contents_is_refused(path: Path, contents: Any, message: str) -> None:
    torch.save(contents, path)
    assert message in refusal(path)


@pytest.mark.parametrize("change", [{"step": 6}, {"model": {"weight": torch.zeros(2, 3)}}, {"more": None}])
def test_contents_that_do_not_match_their_digest_are_refused(saved: Path, change: dict[str, Any]) -> None:
    torch.save({**load_checkpoint(saved), **change}, saved)
    assert "do not match their digest" in refusal(saved)


def test_digest_distinguishes_types_names_and_nesting() -> None:
    nests: list[Any] = [1, 1.0, "1", True, [1], [[1]], {"a": 1}]
    nests += [torch.ones(1), torch.ones(1, 1), torch.ones(1).double(), torch.ones(1).bfloat16()]
    assert len({digest({"x": nest}) for nest in nests}) == len(nests)
    assert digest({"x": torch.ones(1), "digest": 3}) == digest({"x": torch.ones(1)})


def test_newest_file_that_matches_a_pattern_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for age, name in enumerate(["b", "c", "a"]):
        (tmp_path / name).mkdir()
        (tmp_path / name / "best.pt").touch()
        os.utime(tmp_path / name / "best.pt", (1000 - age, 1000 - age))
    assert find_checkpoint(f"{tmp_path}/*/best.pt") == tmp_path / "b" / "best.pt"
    monkeypatch.chdir(tmp_path)
    assert find_checkpoint("./*/best.pt").resolve() == tmp_path / "b" / "best.pt"


def test_plain_name_is_kept(tmp_path: Path) -> None:
    assert find_checkpoint(f"{tmp_path}/not_there.pt") == tmp_path / "not_there.pt"
    (tmp_path / "run[1]").mkdir()
    (tmp_path / "run[1]" / "last.pt").touch()
    assert find_checkpoint(f"{tmp_path}/run[1]/last.pt") == tmp_path / "run[1]" / "last.pt"


def test_pattern_without_a_match_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no checkpoint matches .*ddpm_train\.py"):
        find_checkpoint(f"{tmp_path}/*/best.pt")


def test_newest_intact_of_the_last_two_checkpoints_is_found(path: Path) -> None:
    previous = path.with_name("previous.pt")
    assert newest_intact(path.parent) is None
    for step in (1, 2, 3):
        save_checkpoint(path, {**CONTENTS, "step": step})
    assert sorted(path.parent.iterdir()) == [path, previous]
    assert (load_checkpoint(path)["step"], load_checkpoint(previous)["step"]) == (3, 2)
    assert newest_intact(path.parent) == path
    path.write_bytes(path.read_bytes()[:-100])
    assert newest_intact(path.parent) == previous
    previous.write_bytes(b"")
    with pytest.raises(UserError, match="no undamaged checkpoint"):
        newest_intact(path.parent)
