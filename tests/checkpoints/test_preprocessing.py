"""How images were scaled and what the classes are: from datasets, through checkpoints."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from checkpoints.files import load_checkpoint
from checkpoints.official import translate
from checkpoints.preprocessing import Preprocessing
from datasets import load_dataset
from datasets.cityscapes import Cityscapes
from tests import tiny
from tests.datasets.trees import write_cityscapes
from utils.errors import UserError


def test_training_saves_it_in_checkpoints(finished_run: Path) -> None:
    contents = load_checkpoint(finished_run / "last.pt")
    assert contents["preprocessing"] == {
        "image_mean": [0.5], "image_std": [0.5], "size": [tiny.SIDE, tiny.SIDE],
        "class_names": ["background", "lesion"], "class_colours": None, "void_class": None,
    }  # fmt: skip
    assert Preprocessing.from_checkpoint(contents).size == (tiny.SIDE, tiny.SIDE)


def test_that_of_cityscapes_survives_a_checkpoint(tmp_path: Path) -> None:
    write_cityscapes(tmp_path, "train", {"aachen_000000_000019": np.full((16, 32), 7)})
    data = load_dataset("datasets.cityscapes", "train", {"path": str(tmp_path), "size": [16, 32]})
    kept = Preprocessing.from_dataset(data)
    assert (kept.size, kept.void_class, kept.image_channels) == ((16, 32), 19, 3)
    assert kept.class_colours is not None
    assert kept.class_colours[0] == (128, 64, 128)
    found = Preprocessing.from_checkpoint({"preprocessing": kept.model_dump(mode="json")})
    assert found == kept
    image = torch.rand(3, 4, 4)
    assert torch.allclose(found.normalisation.undo(found.normalisation.apply(image)), image, atol=1e-6)


class Flat:
    """One image in the given shape."""

    num_classes, image_channels = 2, 1

    def __init__(self, *shape: int, **attributes: Any) -> None:
        self.shape = shape
        self.__dict__.update(attributes)

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"image": torch.zeros(self.shape), "labels": torch.zeros(1, 4, 4, dtype=torch.uint8), "name": "x"}


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        (Flat(4, 4), "expected float32, 1 x H x W"),
        (Flat(1, 4, 4, class_names=["a"]), "Flat: `class_names` has 1 entries; expected 2"),
        (Flat(1, 4, 4, void_class=2), "Flat: `void_class` is 2; expected a class below 2"),
        (Flat(1, 4, 4, image_std=[0.0]), "Flat: `image_std.0` should be greater than 0"),
    ],
)
def test_dataset_that_violates_the_contract_is_refused(dataset: Flat, message: str) -> None:
    with pytest.raises(UserError, match=message):
        Preprocessing.from_dataset(dataset)


def test_damaged_entry_is_refused() -> None:
    with pytest.raises(UserError, match="the checkpoint's preprocessing: `image_std` Field required"):
        Preprocessing.from_checkpoint({"preprocessing": {"image_mean": [0.5]}})


@pytest.mark.parametrize(("channels", "num_classes"), [(1, 2), (3, 20)])
def test_official_checkpoints_get_that_of_their_dataset(channels: int, num_classes: int) -> None:
    found = Preprocessing.from_checkpoint(translate(tiny.model(num_classes, channels).network.state_dict()))
    if channels == 3:
        assert found.image_std == list(Cityscapes.image_std)
        assert found.class_names == list(Cityscapes.class_names)
    else:
        assert (found.image_mean, found.image_std, found.size) == ([0.5], [0.5], (128, 128))
