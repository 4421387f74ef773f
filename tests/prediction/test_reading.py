"""Image files become the input of the network."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from checkpoints.preprocessing import Preprocessing
from datasets.cityscapes import Cityscapes
from prediction import read_image
from tests.datasets.test_formats import RAMP, saved
from utils.errors import UserError


def preprocessing(mean: Sequence[float], std: Sequence[float]) -> Preprocessing:
    return Preprocessing(image_mean=list(mean), image_std=list(std))


def test_channels_are_scaled_as_in_training(tmp_path: Path) -> None:
    values = np.stack([RAMP, 255 - RAMP, RAMP // 2], axis=-1)
    image = read_image(saved(tmp_path / "x.png", values), preprocessing(Cityscapes.image_mean, Cityscapes.image_std))
    expected = (values / 255 - np.array(Cityscapes.image_mean)) / np.array(Cityscapes.image_std)
    assert (image.shape, image.dtype) == ((1, 3, 6, 5), torch.float32)
    assert torch.allclose(image[0], torch.from_numpy(expected).movedim(-1, 0).float(), atol=1e-6)
    np.save(tmp_path / "x.npy", np.random.default_rng(0).random((4, 6, 5)))
    assert read_image(tmp_path / "x.npy", preprocessing([0.5] * 5, [0.5] * 5)).shape == (1, 5, 4, 6)


def test_colours_become_grey_by_luminance_and_grey_is_repeated(tmp_path: Path) -> None:
    green = saved(tmp_path / "green.png", np.full((4, 4, 3), (0, 255, 0), np.uint8))
    assert torch.allclose(read_image(green, preprocessing([0], [1])), torch.full((1, 1, 4, 4), 0.587))
    repeated = read_image(saved(tmp_path / "grey.png", RAMP), preprocessing([0] * 3, [1] * 3))
    assert torch.equal(repeated[0, 0], repeated[0, 2])
    assert repeated.shape == (1, 3, 6, 5)


def test_other_numbers_of_channels_raise_errors(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"x.npy has shape \(10, 20, 30\); expected H x W x 1"):
        read_image(saved(tmp_path / "x.npy", np.zeros((10, 20, 30))), preprocessing([0.5], [0.5]))


def test_variables_in_the_name_of_a_found_file_are_not_expanded(tmp_path: Path) -> None:
    (tmp_path / "$HOME").mkdir()
    path = saved(tmp_path / "$HOME" / "x.png", RAMP)
    assert read_image(path, preprocessing([0.5], [0.5])).shape == (1, 1, 6, 5)
