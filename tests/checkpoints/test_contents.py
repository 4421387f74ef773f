"""Checkpoints whose digest is right but whose contents cannot be used are refused, naming the entry."""

import time
from pathlib import Path
from typing import Any

import pytest
import torch

from checkpoints import model
from checkpoints.files import digest, load_checkpoint
from checkpoints.model import build_model
from tests import tiny
from tests.utils.test_plain import LOOP
from utils.errors import UserError


def changed(folder: Path, place: str, value: Any) -> Path:
    """A checkpoint with another value at a place such as `network.params`."""
    path = tiny.save_model(folder / "last.pt")
    contents: dict[str, Any] = torch.load(path, weights_only=True)
    *groups, name = place.split("/")
    inner = contents
    for group in groups:
        inner = inner[group]
    inner[name] = value
    torch.save({**contents, "digest": "" if value is LOOP else digest(contents)}, path)
    return path


@pytest.mark.parametrize(
    ("place", "value", "problem"),
    [
        ("step", -1, "`step` should be greater than or equal to 0"),
        ("step", "5", "`step` should be a valid integer"),
        ("step", 2**70, "`step` is a number of more than 64 bits"),
        ("best", LOOP, "it has more than 200,000 entries or 40 levels"),
        ("best", {"ged": "low"}, "`best.ged` should be a valid number"),
        ("average", [], "`average` should be a valid dictionary"),
        ("average/more", [1.0], "`average.more` should be an instance of Tensor"),
        ("nonfinite_steps", [1, 2], "`nonfinite_steps.2` Field required"),
        ("nonfinite_steps", [1, 2, "weight"], "`nonfinite_steps.2` should be '', 'loss' or 'gradient'"),
        ("optimizer", torch.ones(3), "`optimizer` should be a valid dictionary"),
        ("settings", [], "`settings` should be a valid dictionary"),
        ("settings/dataset_file", 3, "`settings.dataset_file` should be a valid string"),
        ("settings/dataset_params", {"path": "\0"}, "contains the unusable character '\\x00'"),
        ("settings/seed", float("nan"), "settings: `seed` is nan"),
        ("settings/seed", torch.ones(1), "settings: `seed` is a Tensor"),
        ("encoder", {}, "`encoder.model` Field required"),
        ("encoder", {"model": "resnet"}, "`encoder.model`: unknown name 'resnet'"),
        ("network/params/num_classes", "2", "`network.params.num_classes` is '2'; expected 1 to 256"),
        ("network/params/image_channels", 10**9, "`network.params.image_channels` is 1000000000; expected 1 to 4096"),
        ("preprocessing", None, "`preprocessing` should be a valid dictionary"),
        ("preprocessing/image_std", [0.0], "`preprocessing.image_std.0` should be greater than 0"),
        ("preprocessing/image_mean", [0.5, 0.5], "`image_mean` has 2 entries; expected 1"),
        ("preprocessing/size", [10**9, 8], "`preprocessing.size.0` should be less than or equal to 65536"),
        ("preprocessing/class_names", ["a"], "`class_names` has 1 entries; expected 2"),
        ("preprocessing/class_names", ["a", "\x1b"], "contains the unusable character '\\x1b'"),
        ("preprocessing/class_colours", [[0, 0, 0], [1, 2, 256]], "`preprocessing.class_colours.1.2` should be less"),
        ("preprocessing/void_class", 2, "`void_class` is 2; expected a class below 2"),
    ],
)
def test_entry_that_cannot_be_used_is_named(tmp_path: Path, place: str, value: Any, problem: str) -> None:
    path = changed(tmp_path, place, value)
    with pytest.raises(UserError) as error:
        load_checkpoint(path)
    assert str(error.value).startswith(f"{path} is damaged: ")
    assert problem in str(error.value)


@pytest.mark.parametrize(
    ("tensor", "problem"),
    [
        (torch.full((128,), float("nan")), "contains other values than finite numbers of its type"),
        (torch.ones(128, dtype=torch.int64), "contains other values than finite numbers of its type"),
        (torch.ones(127), r"has shape \(127,\) there"),
    ],
)
def test_weights_that_cannot_be_used_are_named(tmp_path: Path, tensor: torch.Tensor, problem: str) -> None:
    contents = load_checkpoint(changed(tmp_path, "average/network.time_embed.0.bias", tensor))
    with pytest.raises(UserError, match=f"network.time_embed.0.bias {problem}"):
        build_model(contents)


@pytest.mark.parametrize(
    ("name", "value"), [("base_channels", 4096), ("channel_mult", [1] * 10), ("num_res_blocks", 32)]
)
def test_network_larger_than_its_weights_takes_no_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: Any
) -> None:
    contents = load_checkpoint(changed(tmp_path, f"network/params/{name}", value))
    monkeypatch.setattr(model, "load_weights", None)
    start = time.monotonic()
    with pytest.raises(UserError, match="the checkpoint belongs to another network"):
        build_model(contents)
    assert time.monotonic() - start < 2
