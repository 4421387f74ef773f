"""Augmentation: the same for image and label map, a function of its keys, and all symmetries of the square."""

import pytest
import torch
from scipy import stats
from torch import Tensor
from torchvision.transforms import v2

from datasets.normalisation import Normalisation
from datasets.transforms import AUGMENTATIONS, TRANSFORMS, Augmentation
from utils.errors import UserError
from utils.noise import derive_key

ALL = ["flip", "flip_vertical", "quarter_turn"]
ASYMMETRIC, WIDE = torch.arange(9, dtype=torch.uint8).view(3, 3), torch.arange(6, dtype=torch.uint8).view(2, 3)


class OneChannel:
    image_channels = 1


class Photographs:
    image_channels = 3
    image_mean, image_std = (0.4, 0.5, 0.6), (0.2, 0.3, 0.1)


class Upright(v2.RandomVerticalFlip):
    """A transform of a user's own: always upside down."""

    def __init__(self) -> None:
        super().__init__(p=1.0)


def augmentation(names: list[str], dataset: type = OneChannel) -> Augmentation:
    return Augmentation(names, Normalisation.from_dataset(dataset))


def keys(number: int, seed: int = 0) -> Tensor:
    return derive_key(seed, torch.arange(number))


def copies(number: int) -> tuple[Tensor, Tensor]:
    labels = ASYMMETRIC.expand(number, 3, 3)
    return labels[:, None].float(), labels


def symmetries(square: Tensor) -> list[Tensor]:
    """All eight of them."""
    return [torch.rot90(side, k, (0, 1)) for side in (square, square.flip(1)) for k in range(4)]


@pytest.mark.parametrize("names", [[name] for name in ALL] + [ALL, ALL[::-1]])
@pytest.mark.parametrize("size", [(6, 6), (4, 6)])
def test_image_and_label_map_move_together(names: list[str], size: tuple[int, int]) -> None:
    labels = torch.randint(5, (30, *size), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    images = torch.stack([labels.float(), -labels.float()], 1)
    moved, maps = augmentation(names)(images, labels, keys(30))
    assert torch.equal(moved, torch.stack([maps.float(), -maps.float()], 1))
    assert (moved.dtype, maps.dtype) == (torch.float32, torch.uint8)
    assert not torch.equal(maps, labels)


@pytest.mark.parametrize(
    ("names", "square", "expected"),
    [
        (ALL, ASYMMETRIC, symmetries(ASYMMETRIC)),
        (["quarter_turn"], ASYMMETRIC, symmetries(ASYMMETRIC)[:4]),
        (["quarter_turn"], WIDE, [WIDE, WIDE.flip((0, 1))]),
        (["flip"], ASYMMETRIC, [ASYMMETRIC, ASYMMETRIC.flip(1)]),
        (["flip_vertical"], ASYMMETRIC, [ASYMMETRIC, ASYMMETRIC.flip(0)]),
        (["flip", "flip"], ASYMMETRIC, [ASYMMETRIC, ASYMMETRIC.flip(1)]),  # drawn twice, independently
    ],
)
def test_symmetries_occur_equally_often(names: list[str], square: Tensor, expected: list[Tensor]) -> None:
    labels = square.expand(1600, *square.shape)
    _, drawn = augmentation(names)(labels[:, None].float(), labels, keys(1600))
    matches = torch.stack([(drawn == one).flatten(1).all(1) for one in expected], 1)
    assert (matches.sum(1) == 1).all()
    assert stats.chisquare(matches.sum(0)).pvalue > 1e-4


@pytest.mark.parametrize("names", [ALL, ["colorjitter", "torchvision.transforms.v2.RandomHorizontalFlip"]])
def test_result_depends_only_on_the_key(names: list[str]) -> None:
    augment = augmentation(names, Photographs)
    images, labels = torch.rand(8, 3, 5, 5), torch.randint(3, (8, 5, 5), dtype=torch.uint8)
    moved, maps = augment(images, labels, keys(8))
    alone = [augment(images[row, None], labels[row, None], keys(8)[row, None]) for row in reversed(range(8))][::-1]
    assert torch.allclose(moved, torch.cat([one for one, _ in alone]), atol=1e-6)
    assert torch.equal(maps, torch.cat([one for _, one in alone]))
    assert not torch.equal(maps, augment(images, labels, keys(8, seed=1))[1])


@pytest.mark.parametrize("names", [ALL, ["colorjitter"]])
def test_global_random_state_and_arguments_stay_unchanged(names: list[str]) -> None:
    images, state = torch.rand(4, 3, 5, 5), torch.get_rng_state()
    before = images.clone()
    augmentation(names, Photographs)(images, torch.zeros(4, 5, 5, dtype=torch.uint8), keys(4))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(images, before)


def test_colour_jitter_changes_colours_within_their_range_and_no_labels() -> None:
    normalisation = Normalisation.from_dataset(Photographs)
    images = normalisation.apply(torch.rand(20, 3, 6, 6, generator=torch.Generator().manual_seed(0)))
    labels = torch.randint(5, (20, 6, 6), dtype=torch.uint8)
    jittered, maps = augmentation(["colorjitter"], Photographs)(images, labels, keys(20))
    colours = normalisation.undo(jittered)
    assert torch.equal(maps, labels)
    assert colours.min() > -1e-6
    assert colours.max() < 1 + 1e-6
    assert ((jittered - images).abs().mean((1, 2, 3)) > 0.02).float().mean() > 0.8
    brightness = colours.mean((1, 2, 3)) / normalisation.undo(images).mean((1, 2, 3))
    assert brightness.min() < 0.8
    assert brightness.max() > 1.1


def whirl(images: Tensor, labels: Tensor, keys: Tensor) -> tuple[Tensor, Tensor]:
    """An augmentation of a user's own, which sees whole batches."""
    return images.rot90(2, (-2, -1)) + keys[:, None, None, None] % 2, labels.rot90(2, (-2, -1))


def test_transform_of_a_users_own_is_applied_item_by_item() -> None:
    images, labels = copies(3)
    moved, maps = augmentation([f"{__name__}.Upright"])(images, labels, keys(3))
    assert torch.equal(maps, labels.flip(1))
    assert torch.allclose(moved, images.flip(2), atol=1e-6)


def test_augmentation_of_a_users_own_is_applied_to_the_batch() -> None:
    images, labels = copies(30)
    moved, maps = augmentation([f"{__name__}.whirl"])(images, labels, keys(30))
    assert torch.equal(maps, labels.rot90(2, (-2, -1)))
    assert (moved - images.rot90(2, (-2, -1))).unique().tolist() == [0, 1]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("flup", f"unknown name 'flup'; use one of {', '.join([*AUGMENTATIONS, *TRANSFORMS])}"),
        (".", "unknown name '.'"),
        ("a..b", "there is no module a."),
        ("no_such_module.Turn", "there is no module no_such_module"),
        ("torchvision.transforms.v2.Turn", "torchvision.transforms.v2 has no function `Turn`"),
        ("torchvision.transforms.v2.RandomCrop", "missing a required argument: 'size'"),
        ("resize", "remove 'resize'; the dataset does it (dataset_params.size"),
        ("torchvision_normalise", "remove 'torchvision_normalise'; the dataset does it"),
    ],
)
def test_name_that_is_not_an_augmentation_is_refused(name: str, message: str) -> None:
    with pytest.raises(UserError) as error:
        augmentation(["flip", name])
    assert str(error.value).startswith("dataset_pipeline_train")
    assert message in str(error.value)


class FiveTimes(v2.Resize):
    def __init__(self) -> None:
        super().__init__(15)


def test_transform_that_changes_the_size_is_refused() -> None:
    with pytest.raises(UserError, match="FiveTimes turns an image of"):
        augmentation([f"{__name__}.FiveTimes"])(*copies(2), keys(2))
