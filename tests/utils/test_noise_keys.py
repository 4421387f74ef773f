"""Keys of noise: functions of their parts, and of the content of an image, that do not collide."""

import math

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from utils.noise import derive_key, image_keys, seed_from, uniform


def test_keys_from_integers_and_from_tensors_agree() -> None:
    values = [0, 1, -1, 255, -(2**63), 2**63 - 1, 2**32]
    together = derive_key(7, torch.tensor(values), "step", 3)
    assert together.dtype == torch.int64
    for value, key in zip(values, together, strict=True):
        assert torch.equal(derive_key(7, value, "step", 3), key)
        assert torch.equal(derive_key(torch.tensor(7), torch.tensor(value), "step", torch.tensor(3)), key)
    assert torch.equal(derive_key(2**64 - 1), derive_key(-1))
    assert torch.equal(derive_key(torch.tensor([3], dtype=torch.uint8)), derive_key(torch.tensor([3])))


def test_key_parts_broadcast() -> None:
    keys = derive_key(1, torch.arange(3)[:, None], torch.arange(4))
    assert keys.shape == (3, 4)
    assert int(keys[2, 1]) == int(derive_key(1, 2, 1))
    assert derive_key(1).shape == ()


def test_keys_know_order_number_and_purpose_of_their_parts() -> None:
    parts: list[tuple[int | str, ...]] = [(), (0,), (0, 0), (1,), (1, 2), (2, 1), (1, 2, 0), ("a",), ("b",), ("a", 1)]
    parts += [(1, "a"), ("ab",), ("a", "b"), ("",), ("1",)]
    assert len({int(derive_key(*part)) for part in parts}) == len(parts)


def test_keys_of_a_large_grid_do_not_collide() -> None:
    keys = derive_key(torch.arange(-500, 500)[:, None], torch.arange(-500, 500))
    assert len(keys.unique()) == keys.numel()


def test_every_bit_of_a_part_changes_half_of_the_key() -> None:
    """Avalanche: each of 64 x 64 pairs of input and output bits, within five standard errors of one half."""
    number = 4096
    values, bit = torch.arange(number) * 7919, torch.arange(64)
    flipped = derive_key(values[:, None] ^ (torch.ones(64, dtype=torch.int64) << bit))
    differ = ((derive_key(values)[:, None] ^ flipped)[..., None] >> bit) & 1
    frequency = differ.double().mean(0)
    assert float((frequency - 0.5).abs().max()) * 2 * math.sqrt(number) < 5


def test_seeds_are_keys_without_their_sign() -> None:
    seeds = [seed_from("epoch", i) for i in range(200)]
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert len(set(seeds)) == 200
    assert seeds[3] == int(derive_key("epoch", 3)) % 2**63
    np.random.default_rng(seeds[0])
    torch.Generator().manual_seed(seeds[0])


def some_images(batch: int) -> Tensor:
    return torch.rand(batch, 3, 9, 11, generator=torch.Generator().manual_seed(0))


def test_image_keys_do_not_depend_on_the_batch() -> None:
    images = some_images(7)
    keys = image_keys(images)
    assert keys.dtype == torch.int64
    assert torch.equal(keys, torch.cat([image_keys(image[None]) for image in images]))
    assert torch.equal(keys, image_keys(images.transpose(1, 2).contiguous().transpose(1, 2)))
    assert torch.equal(keys, image_keys(images.double()))
    assert len(keys.unique()) == 7


def test_image_keys_see_one_unit_in_the_last_place_of_any_pixel() -> None:
    image = some_images(1).flatten()
    changed = image.expand(len(image), -1).clone()
    changed.diagonal().copy_(torch.nextafter(image, torch.tensor(2.0)))
    keys = image_keys(torch.cat([image[None], changed]).view(-1, 3, 9, 11))
    assert len(keys.unique()) == len(image) + 1


def test_image_keys_see_two_pixels_swapped() -> None:
    image = some_images(1).flatten()
    swaps = [image]
    for i, j in torch.combinations(torch.arange(0, len(image), 7)):
        swapped = image.clone()
        swapped[i], swapped[j] = image[j], image[i]
        swaps.append(swapped)
    keys = image_keys(torch.stack(swaps).view(-1, 3, 9, 11))
    assert len(keys.unique()) == len(swaps)


def test_image_keys_see_flips_turns_and_shapes_of_constant_pixels() -> None:
    image = some_images(1)[..., :9]
    views = [image, image.flip(-1), image.flip(-2), image.rot90(1, (-2, -1)), image.flip(1), image * 2, image * 0]
    assert len({int(image_keys(view)) for view in views}) == len(views)
    assert len({int(image_keys(torch.zeros(1, 1, side, side))) for side in range(1, 20)}) == 19


def test_image_keys_are_spread_evenly() -> None:
    """Images that differ in one pixel give keys of which every bit changes half of the time."""
    number = 4096
    images = torch.zeros(number, 1, 4, 4)
    images[:, 0, 2, 1] = torch.arange(number)
    bits = (image_keys(images)[:, None] >> torch.arange(64)) & 1
    assert float((bits.double().mean(0) - 0.5).abs().max()) * 2 * math.sqrt(number) < 4.5
    assert stats.kstest(uniform(image_keys(images), (1,)).flatten().numpy(), "uniform").pvalue > 1e-4


def test_zero_and_minus_zero_are_the_same_image() -> None:
    zeros = torch.zeros(1, 1, 4, 4)
    assert torch.equal(image_keys(zeros), image_keys(-zeros))
