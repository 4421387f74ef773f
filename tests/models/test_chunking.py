"""Packs that fill the device, and smaller ones where they do not fit."""

import pytest
import torch
from torch import Tensor

from models.chunking import default_chunk_size, run_in_chunks


def drawn_with_room_for(most: int, size: int) -> list[int]:
    """The sizes of the packs that are drawn of 10 items on a device that holds `most` of them."""

    def draw(pack: Tensor) -> Tensor:
        if len(pack) > most:
            raise torch.OutOfMemoryError("no room")
        return pack

    packs = list(run_in_chunks(draw, torch.arange(10), size))
    assert torch.cat(packs).tolist() == list(range(10))
    return [len(pack) for pack in packs]


def test_everything_is_drawn_in_packs_of_the_size() -> None:
    assert drawn_with_room_for(99, 4) == [4, 4, 2]
    assert drawn_with_room_for(99, 99) == [10]


def test_pack_is_halved_until_it_fits_and_stays_so() -> None:
    assert drawn_with_room_for(3, 99) == [2, 2, 2, 2, 2]
    assert drawn_with_room_for(1, 3) == [1] * 10


def test_one_item_that_does_not_fit_is_an_error() -> None:
    with pytest.raises(torch.OutOfMemoryError):
        drawn_with_room_for(0, 4)


def test_larger_images_come_in_smaller_packs() -> None:
    for name in ("cpu", "cuda"):
        sizes = [default_chunk_size(side, side, torch.device(name)) for side in (32, 128, 512, 4096)]
        assert sizes == sorted(sizes, reverse=True)
        assert sizes[-1] == 1
