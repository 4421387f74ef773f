"""A cache returns exactly what the dataset returns, in 8 bits if that is lossless."""

from typing import Any

import pytest
import torch
from torch import Tensor

from datasets.cache import CachedImages, cached
from datasets.loading import TrainingBatch, training_batches
from tests.tiny import same
from utils.errors import UserError

CPU = torch.device("cpu")
LENGTH = 40
PIPELINE = ["flip", "quarter_turn"]


class Own:
    """Images with index % 3 + 1 annotators."""

    num_classes = 4

    def __init__(self, images: Tensor, **attributes: Any) -> None:
        self.images, self.image_channels = images, images.shape[1]
        self.__dict__.update(attributes)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> dict[str, Any]:
        shape = index % 3 + 1, *self.images.shape[-2:]
        labels = torch.randint(4, shape, generator=torch.Generator().manual_seed(index)).to(torch.uint8)
        return {"image": self.images[index], "labels": labels, "name": f"number {index}"}


def eight_bit(channels: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(channels)
    return torch.randint(256, (LENGTH, channels, 6, 6), generator=generator).float() / 255


def batches(images: Any, workers: int = 0) -> list[TrainingBatch]:
    return list(training_batches(images, PIPELINE, 8, 0, 12, 0, workers))


def image_bytes(images: CachedImages) -> int:
    return images._images.nbytes


PHOTOGRAPHS = {"image_mean": (0.485, 0.456, 0.406), "image_std": (0.229, 0.224, 0.225)}


def normalised(images: Tensor) -> Tensor:
    mean, std = (torch.tensor(PHOTOGRAPHS[name]).view(3, 1, 1) for name in ("image_mean", "image_std"))
    return (images - mean) / std


@pytest.mark.parametrize(
    "data",
    [Own(eight_bit() * 2 - 1), Own((eight_bit() - 0.5) * 2), Own(normalised(eight_bit(3)), **PHOTOGRAPHS)],
    ids=["scaled", "shifted and scaled", "photographs"],
)
def test_eight_bit_images_are_stored_in_eight_bits_without_loss(data: Own) -> None:
    images = CachedImages(data, CPU, workers=0)
    assert image_bytes(images) == LENGTH * data.image_channels * 36
    drawn, _, _ = images.draw(torch.arange(LENGTH))
    assert same(drawn, data.images)


@pytest.mark.parametrize("late", [0, 16, LENGTH - 1])
def test_other_images_are_stored_as_floats_without_loss(late: int) -> None:
    data = Own(eight_bit() * 2 - 1)
    data.images[late] += 1e-6
    images = CachedImages(data, CPU, workers=0)
    drawn, _, _ = images.draw(torch.arange(LENGTH))
    assert same(drawn, data.images)
    assert image_bytes(images) == LENGTH * 36 * 4


@pytest.mark.parametrize("cache", ["memory", "device"])
@pytest.mark.parametrize("workers", [0, 2])
def test_training_batches_are_the_same_as_without_a_cache(cache: Any, workers: int) -> None:
    data = Own(eight_bit() * 2 - 1)
    assert same(batches(cached(data, cache, CPU, workers), workers), batches(data))


def test_without_a_cache_the_dataset_is_returned() -> None:
    data = Own(eight_bit())
    assert cached(data, None, CPU, 0) is data


def test_all_label_maps_of_an_image_are_drawn_and_no_other() -> None:
    images = CachedImages(Own(eight_bit()), CPU, workers=0)
    _, labels, present = images.draw(torch.tensor([5, 3, 4]))  # of 3, 1 and 2 annotators
    assert present.tolist() == [[True] * 3, [True, False, False], [True, True, False]]
    assert not labels[~present].any()
    for row, index in enumerate((5, 3, 4)):
        assert same(labels[row][present[row]], Own(eight_bit())[index]["labels"])


class Uneven(Own):
    def __getitem__(self, index: int) -> dict[str, Any]:
        item = super().__getitem__(index)
        return item if index < 20 else {**item, "image": item["image"][:, :4], "labels": item["labels"][:, :4]}


def test_images_of_different_sizes_are_refused() -> None:
    with pytest.raises(UserError, match="different sizes"):
        CachedImages(Uneven(eight_bit()), CPU, workers=0)


@pytest.mark.parametrize("workers", [0, 1])
def test_item_that_violates_the_contract_is_named(workers: int) -> None:
    data = Own(eight_bit(), source="a file")
    data.images[33, 0, 2, 1] = torch.nan
    with pytest.raises(UserError) as error:
        CachedImages(data, CPU, workers)
    assert str(error.value) == "a file: number 33 (index 33): the image is nan at (0, 2, 1); expected finite values"
