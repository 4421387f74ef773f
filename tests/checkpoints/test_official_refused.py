"""Files that are not official, or do not fit the data, are refused without executing anything in them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import ddpm_train
from models import FeatureCondition
from tests import tiny
from tests.checkpoints.official_files import (
    SMALL,
    SMALL_DINO,
    Load,
    State,
    main_branch,
    unet_state,
    wrapped,
)
from tests.checkpoints.test_files import TouchesAFile
from utils.errors import UserError

WIDE = FeatureCondition(channels=512, output_stride=8, target_layer=7)


def broken(change: Callable[[State], None]) -> dict[str, Any]:
    state = unet_state(SMALL)
    change(state)
    return {"model": unet_state(SMALL), "average_model": state}


def widen(state: State) -> None:
    state["output_blocks.0.0.in_layers.2.weight"] = torch.zeros(64, 96, 3, 3)


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "unknown tensor": (
        lambda: broken(lambda state: state.update({"out_ce.2.bias": torch.zeros(1)})),
        r"`average_model` belongs to another network: it has an unexpected tensor out_ce\.2\.bias",
    ),
    "missing tensor": (
        lambda: broken(lambda state: state.pop("middle_block.1.norm.bias")),
        r"lacks the tensor middle_block\.1\.norm\.bias",
    ),
    "other shape": (
        lambda: broken(widen),
        r"output_blocks\.0\.0\.in_layers\.2\.weight has shape \(64, 96, 3, 3\) there, \(64, 128, 3, 3\) here",
    ),
    "no last layer": (lambda: broken(lambda state: state.pop("out.2.weight")), r"'out\.2\.weight' is missing"),
    "next to the network": (
        lambda: {"model": {**wrapped("unet.", unet_state(SMALL)), "head.bias": torch.zeros(1)}},
        r"the tensor head\.bias is unexpected",
    ),
    "another network": (lambda: {"model": {"fc.weight": torch.zeros(2, 2)}}, r"no tensor time_embed\.0\.weight"),
    "no tensors": (lambda: {"model": {}, "epoch": 3}, "no tensors under `model` or `average_model`"),
    "a tensor": (lambda: torch.zeros(3), "no tensors under `model` or `average_model`"),
    "features of no DINO": (
        lambda: main_branch(SMALL_DINO.model_copy(update={"feature": WIDE})),
        "no DINO model has features of 512 channels from patches of 8 pixels",
    ),
    "encoder of another kind": (
        lambda: {**main_branch(SMALL_DINO), "cond_encoder": {"model.conv1.weight": torch.zeros(3)}},
        "`cond_encoder` contains no vision transformer",
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_file_that_cannot_be_used_is_refused(load: Load, kind: str) -> None:
    contents, message = REFUSED[kind]
    with pytest.raises(
        UserError, match=rf"that\.pt is neither a checkpoint of this software nor an official one: .*{message}"
    ):
        load(contents())


def test_features_that_join_twice_are_refused(load: Load) -> None:
    state = unet_state(SMALL_DINO)
    state["input_blocks.3.0.in_layers.0.weight"] = torch.zeros(96)
    with pytest.raises(UserError, match="join at the input blocks 3 and 7"):
        load({"model": state})


def test_code_in_a_file_is_not_executed(load: Load, tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    with pytest.raises(UserError, match=r"cannot be read safely: it refers to \S*mkdir"):
        load({**main_branch(SMALL), "engine": TouchesAFile(trap)})
    assert not trap.exists()


@pytest.mark.parametrize("array", [np.array([object()]), np.array(["text"]), np.array([(1, 2.0)], dtype="i4,f4")])
def test_only_arrays_of_numbers_are_read(load: Load, array: Any) -> None:
    with pytest.raises(UserError, match="is not a checkpoint"):
        load({**main_branch(SMALL), "scheduler": {"array": array}})


def test_fine_tuning_on_other_classes_is_refused(data_folder: Path, tmp_path: Path) -> None:
    torch.save(main_branch(tiny.unet_config(3)), tmp_path / "that.pt")
    with pytest.raises(UserError, match=r"has 3 classes and images of 1 channels, but datasets\.synthetic has 2 and 1"):
        ddpm_train.main(tiny.train_argv(data_folder, tmp_path / "run", f"init_from={tmp_path}/that.pt"))
