"""Chunks that keep the device busy, and smaller ones where they do not fit."""

import pytest
import torch
from torch import Tensor

from models.chunking import default_chunk_size, run_in_chunks


def chunk_sizes(room: int, size: int) -> list[int]:
    """The sizes of the chunks in which 10 items are computed on a device with room for `room` of them."""

    def run(chunk: Tensor) -> Tensor:
        if len(chunk) > room:
            raise torch.OutOfMemoryError("no room")
        return chunk

    chunks = list(run_in_chunks(run, torch.arange(10), size))
    assert torch.cat(chunks).tolist() == list(range(10))
    return [len(chunk) for chunk in chunks]


@pytest.mark.parametrize(
    ("room", "size", "expected"), [(99, 4, [4, 4, 2]), (99, 99, [10]), (3, 99, [2] * 5), (1, 3, [1] * 10)]
)
def test_chunks_have_the_requested_size_and_are_halved_until_they_fit(
    room: int, size: int, expected: list[int]
) -> None:
    assert chunk_sizes(room, size) == expected


def test_all_chunks_can_have_one_size() -> None:
    sizes = []

    def run(chunk: Tensor) -> Tensor:
        sizes.append(len(chunk))
        if len(chunk) > 4:
            raise torch.OutOfMemoryError("no room")
        return 10 * chunk

    chunks = list(run_in_chunks(run, torch.arange(10), 8, fill=True))
    assert torch.cat(chunks).tolist() == list(range(0, 100, 10))
    assert sizes == [8, 4, 4, 4]
    assert next(run_in_chunks(run, torch.arange(3), 4, fill=True)).tolist() == [0, 10, 20]
    assert sizes[4:] == [3], "not more than there are items"


def test_one_item_that_does_not_fit_is_an_error() -> None:
    with pytest.raises(torch.OutOfMemoryError):
        chunk_sizes(0, 4)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_chunks_of_larger_images_are_smaller(device: str) -> None:
    sizes = [default_chunk_size(side, side, torch.device(device)) for side in (32, 128, 512, 4096)]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] == 1


def test_chunks_of_networks_on_patches_are_larger() -> None:
    sizes = [default_chunk_size(128, 128, torch.device("cpu"), patch_size) for patch_size in (1, 2, 4)]
    assert sizes == [4, 8, 16]
