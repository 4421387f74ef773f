"""What checkpoints say of images and classes, and what is assumed where they say nothing."""

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


def contents(dataset_file: str | None, channels: int, num_classes: int = 2, **params: Any) -> dict[str, Any]:
    network = {"num_classes": num_classes, "image_channels": channels}
    return {"settings": {"dataset_file": dataset_file, "dataset_params": params}, "network": network}


def test_training_keeps_it_in_its_checkpoints(finished_run: Path) -> None:
    checkpoint = load_checkpoint(finished_run / "last.pt")
    assert checkpoint["preprocessing"] == {
        "image_mean": [0.5], "image_std": [0.5], "size": (tiny.SIDE, tiny.SIDE),
        "class_names": ["background", "lesion"], "class_colours": None, "void_class": None,
    }  # fmt: skip
    assert Preprocessing.of_checkpoint(checkpoint).size == (tiny.SIDE, tiny.SIDE)


def test_that_of_cityscapes_survives_a_checkpoint(tmp_path: Path) -> None:
    write_cityscapes(tmp_path, "train", {"aachen_000000_000019": np.full((16, 32), 7)})
    data = load_dataset("datasets.cityscapes", "train", {"path": str(tmp_path), "size": [16, 32]})
    kept = Preprocessing.of(data)
    assert kept.size == (16, 32)
    assert kept.void_class == 19
    assert kept.class_colours is not None
    assert kept.class_colours[0] == [128, 64, 128]
    found = Preprocessing.of_checkpoint({**contents("my.data", 3, 20), "preprocessing": kept.as_data()})
    assert found == kept
    image = torch.rand(3, 4, 4)
    assert torch.allclose(found.normalisation.undo(found.normalisation.apply(image)), image, atol=1e-6)


def test_damaged_first_image_is_told() -> None:
    class Flat:
        num_classes, image_channels = 2, 1

        def __len__(self) -> int:
            return 1

        def __getitem__(self, index: int) -> dict[str, Any]:
            return {"image": torch.zeros(4, 4), "labels": torch.zeros(1, 4, 4, dtype=torch.uint8), "name": "x"}

    with pytest.raises(UserError, match="expected float32, 1 x H x W"):
        Preprocessing.of(Flat())


@pytest.mark.parametrize(
    ("old", "mean", "size"),
    [
        (contents("datasets.lidc", 1), [0.5], (128, 128)),
        (contents("datasets.synthetic", 1, side=64), [0.5], (64, 64)),
        (contents("my.data", 3), [0.5] * 3, None),
        (contents(None, 1), [0.5], None),
        (contents("datasets.cityscapes", 3, 20, size=[256, 512]), list(Cityscapes.image_mean), (256, 512)),
    ],
)
def test_checkpoints_without_it_are_completed_and_that_is_said(
    old: dict[str, Any], mean: list[float], size: tuple[int, int] | None, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO", logger="ccdm"):
        found = Preprocessing.of_checkpoint(old)
    assert list(found.image_mean) == mean
    assert found.size == size
    assert "does not say how its images were scaled" in caplog.text


@pytest.mark.parametrize(("channels", "num_classes"), [(1, 2), (3, 20)])
def test_official_checkpoints_have_it(channels: int, num_classes: int, caplog: pytest.LogCaptureFixture) -> None:
    file = translate(tiny.model(num_classes, channels).unet.state_dict())
    caplog.clear()
    found = Preprocessing.of_checkpoint(file)
    assert caplog.text == ""
    if channels == 3:
        assert list(found.image_std) == list(Cityscapes.image_std)
        assert found.class_names == Cityscapes.class_names
    else:
        assert list(found.image_mean) == [0.5]
