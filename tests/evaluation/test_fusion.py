"""Samples fused as they are drawn, against fusion of all of them at once."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor
from torch.nn.functional import one_hot

from evaluation.fusion import fuse, label_map
from models import SampleChunk, SamplingOptions
from tests import tiny
from utils.schema import VoteStrategy


def packs_of(probabilities: Tensor, of_image: list[int], number: list[int], pack: int) -> Iterator[SampleChunk]:
    """The maps (M x C x H x W) as packs of that many."""
    for part in torch.arange(len(probabilities)).split(pack):
        labels = probabilities[part].argmax(1).to(torch.uint8)
        yield SampleChunk(torch.tensor(of_image)[part], torch.tensor(number)[part], labels, probabilities[part])


@pytest.mark.parametrize("max_batch_size", [1, 4, 64])
@pytest.mark.parametrize("strategy", ["confidence", "majority"])
def test_first_samples_of_one_set_of_draws_are_fused(strategy: VoteStrategy, max_batch_size: int) -> None:
    model, images, kept, counts = tiny.model(num_classes=4), tiny.images(3), [0, 1, 3], [1, 2, 5]
    fused = fuse(model.packs(images, SamplingOptions(5, 3, max_batch_size=max_batch_size)), 3, counts, kept, strategy)
    assert fused.shape == (3, 3, 3, tiny.SIDE, tiny.SIDE)
    (pack,) = model.packs(images, SamplingOptions(5, 3))
    one_by_one = pack.probabilities[:, kept].unflatten(0, (3, 5))
    if strategy == "majority":
        one_by_one = one_hot(one_by_one.argmax(2), 3).movedim(-1, 2).float()
    for place, count in enumerate(counts):
        torch.testing.assert_close(fused[:, place], one_by_one[:, :count].mean(1), atol=1e-5, rtol=1e-4)


def test_fused_probabilities_are_those_of_the_samples() -> None:
    model, images = tiny.model(num_classes=4), tiny.images(2)
    fused = fuse(model.packs(images, SamplingOptions(5, 3, max_batch_size=3)), 2, [2, 5], [0, 1, 2, 3], "confidence")
    torch.testing.assert_close(fused[:, 1], model.sample(images, 5, 3, max_batch_size=3).probabilities)


def test_order_of_the_draws_does_not_matter() -> None:
    maps = torch.rand(6, 3, 2, 2, generator=torch.Generator().manual_seed(0)).softmax(1)
    image_by_image = fuse(packs_of(maps, [0, 0, 0, 1, 1, 1], [0, 1, 2, 0, 1, 2], 6), 2, [1, 3], [0, 1, 2], "majority")
    shuffled = [3, 0, 5, 1, 4, 2]
    other = packs_of(maps[shuffled], [1, 0, 1, 0, 1, 0], [0, 0, 2, 1, 1, 2], 4)
    torch.testing.assert_close(fuse(other, 2, [1, 3], [0, 1, 2], "majority"), image_by_image)


@pytest.mark.parametrize(("strategy", "winner"), [("confidence", 0), ("majority", 1)])
def test_sure_minority_wins_by_confidence_and_loses_by_majority(strategy: VoteStrategy, winner: int) -> None:
    maps = torch.tensor([[0.9, 0.1, 0.0], [0.4, 0.6, 0.0], [0.4, 0.6, 0.0]])[:, :, None, None]
    fused = fuse(packs_of(maps, [0, 0, 0], [0, 1, 2], 2), 1, [3], [0, 1, 2], strategy)
    assert label_map(fused[0, 0], (1, 1)).item() == winner


@pytest.mark.parametrize("strategy", ["confidence", "majority"])
def test_void_is_never_predicted_however_probable_it_is(strategy: VoteStrategy) -> None:
    maps = torch.tensor([[0.1, 0.7, 0.2]])[:, :, None, None]
    fused = fuse(packs_of(maps, [0], [0], 1), 1, [1], [0, 2], strategy)
    assert label_map(fused[0, 0], (1, 1)).item() == 1  # the position of class 2


def test_fused_map_is_resized_before_the_arg_max() -> None:
    row = torch.tensor([[1.0, 0.4], [0.0, 0.6]])[:, None]
    assert label_map(row, (1, 2)).tolist() == [[0, 1]]
    assert label_map(row, (1, 4)).tolist() == [[0, 0, 0, 1]]  # class 0 has 1, 0.85, 0.55 and 0.4
