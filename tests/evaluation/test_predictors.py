"""What is evaluated: the model, its fused samples, the oracle and the baselines."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn.functional import one_hot

from datasets.loading import EvaluationBatch, evaluation_batches
from datasets.synthetic import SyntheticLesions, get_dataset
from diffusion import SamplingConfig
from evaluation import always_empty, baselines, majority_vote, model_samples, oracle
from evaluation.predictors import fuse, fused_label_map
from models import SampleChunk
from tests import tiny
from tests.evaluation.data import Maps, Scenes, batch_of


@pytest.fixture
def val(data_folder: Path) -> SyntheticLesions:
    return get_dataset("val", str(data_folder), tiny.SIDE)


def whole(dataset: SyntheticLesions) -> EvaluationBatch:
    (batch,) = evaluation_batches(dataset, list(range(len(dataset))), len(dataset), workers=0)
    return batch


def test_majority_is_what_most_annotators_chose_and_of_a_tie_the_lowest_class() -> None:
    assert majority_vote(3)(batch_of([[[2, 1], [1, 0]]])).labels.tolist() == [[[[1, 0]]]]
    prediction = majority_vote(3)(batch_of([[[0, 1, 2], [0, 1, 1], [2, 0, 2]]]))
    assert prediction.labels.tolist() == [[[[0, 1, 2]]]]
    assert prediction.labels.dtype == torch.uint8
    expected = torch.tensor([[2, 1, 0], [0, 2, 1], [1, 0, 2]]) / 3
    assert torch.allclose(prediction.probabilities[0, :, 0].double(), expected.double())


def test_absent_annotators_have_no_vote() -> None:
    batch = batch_of([[[1, 1], [0, 0], [0, 0]], [[1, 0], [1, 0], [0, 1]]], [[True, False, False], [True] * 3])
    assert majority_vote(2)(batch).labels.tolist() == [[[[1, 1]]], [[[1, 0]]]]


def test_always_empty_is_one_map_of_background() -> None:
    prediction = always_empty(3)(batch_of([[[1, 2], [2, 2]]]))
    assert prediction.labels.tolist() == [[[[0, 0]]]]
    assert prediction.probabilities[0, :, 0].tolist() == [[1, 1], [0, 0], [0, 0]]


def test_oracle_knows_the_true_probabilities(val: SyntheticLesions) -> None:
    prediction = oracle(val, num_samples=3000, seed=0)(whole(val))
    expected = torch.stack([val.label_probabilities(index) for index in range(4)])
    assert torch.equal(prediction.probabilities, expected.float())
    frequencies = prediction.labels.double().mean(1)
    assert (frequencies - expected[:, 1]).abs().max() < 4.5 * 0.5 / 3000**0.5


def test_model_is_sampled_as_the_settings_say(val: SyntheticLesions) -> None:
    model, batch, sampling = tiny.model(), whole(val), SamplingConfig(steps=4, sampler="ddim", eta=0.5)
    prediction = model_samples(model, 3, sampling, seed=7, max_batch_size=5)(batch)
    expected = model.sample(batch.images, 3, sampling, 7, max_batch_size=5)
    assert torch.equal(prediction.labels, expected.labels)
    assert torch.equal(prediction.probabilities, expected.probabilities)
    assert not torch.equal(prediction.labels, model.sample(batch.images, 3, SamplingConfig(steps=4), 7).labels)


def test_baselines_are_those_of_the_data(val: SyntheticLesions) -> None:
    assert list(baselines(val, 2)) == ["oracle", "majority vote", "always empty"]
    assert list(baselines(Maps([[0, 1], [1, 1]]), 2)) == ["majority vote", "always empty"]  # type: ignore[arg-type]
    assert baselines(Scenes(), 2) == {}  # type: ignore[arg-type]


# Fused samples.


def chunks_of(
    probabilities: Tensor, image_index: list[int], sample_index: list[int], size: int
) -> Iterator[SampleChunk]:
    """The maps (M x C x H x W) in chunks of that size."""
    for part in torch.arange(len(probabilities)).split(size):
        labels = probabilities[part].argmax(1).to(torch.uint8)
        indices = torch.tensor(image_index)[part], torch.tensor(sample_index)[part]
        yield SampleChunk(*indices, labels, probabilities[part])


@pytest.mark.parametrize("max_batch_size", [1, 4, 64])
@pytest.mark.parametrize("strategy", ["confidence", "majority"])
def test_first_samples_of_one_set_are_fused(strategy: str, max_batch_size: int) -> None:
    model, images, kept, sampling = tiny.model(num_classes=4), tiny.images(3), [0, 1, 3], SamplingConfig(steps=3)
    fused = fuse(model.iter_samples(images, 5, sampling, max_batch_size=max_batch_size), 3, [1, 2, 5], 2, strategy)
    assert fused.shape == (3, 3, 4, tiny.SIDE, tiny.SIDE)
    assert (fused[:, :, 2] == -1).all()
    (chunk,) = model.iter_samples(images, 5, sampling)
    one_by_one = chunk.probabilities[:, kept].unflatten(0, (3, 5))
    if strategy == "majority":
        one_by_one = one_hot(one_by_one.argmax(2), 3).movedim(-1, 2).float()
    for place, count in enumerate([1, 2, 5]):
        torch.testing.assert_close(fused[:, place, kept], one_by_one[:, :count].mean(1), atol=1e-5, rtol=1e-4)


def test_order_of_the_samples_does_not_matter() -> None:
    maps = torch.rand(6, 3, 2, 2, generator=torch.Generator().manual_seed(0)).softmax(1)
    in_order = fuse(chunks_of(maps, [0, 0, 0, 1, 1, 1], [0, 1, 2, 0, 1, 2], 6), 2, [1, 3], None, "majority")
    shuffled = chunks_of(maps[[3, 0, 5, 1, 4, 2]], [1, 0, 1, 0, 1, 0], [0, 0, 2, 1, 1, 2], 4)
    torch.testing.assert_close(fuse(shuffled, 2, [1, 3], None, "majority"), in_order)


@pytest.mark.parametrize(("strategy", "winner"), [("confidence", 0), ("majority", 1)])
def test_certain_minority_wins_by_confidence_and_loses_by_majority(strategy: str, winner: int) -> None:
    maps = torch.tensor([[0.9, 0.1, 0.0], [0.4, 0.6, 0.0], [0.4, 0.6, 0.0]])[:, :, None, None]
    fused = fuse(chunks_of(maps, [0, 0, 0], [0, 1, 2], 2), 1, [3], None, strategy)
    assert fused_label_map(fused[0, 0], (1, 1)).item() == winner


@pytest.mark.parametrize("strategy", ["confidence", "majority"])
@pytest.mark.parametrize(("void", "winner"), [(1, 2), (0, 1)])
def test_void_is_never_predicted(strategy: str, void: int, winner: int) -> None:
    maps = torch.tensor([[0.1, 0.7, 0.2]])[:, :, None, None]
    fused = fuse(chunks_of(maps, [0], [0], 1), 1, [1], void, strategy)
    assert fused_label_map(fused[0, 0], (1, 1)).item() == winner


def test_fused_map_is_resized_before_the_arg_max() -> None:
    row = torch.tensor([[1.0, 0.4], [0.0, 0.6]])[:, None]
    assert fused_label_map(row, (1, 2)).tolist() == [[0, 1]]
    assert fused_label_map(row, (1, 4)).tolist() == [[0, 0, 0, 1]]  # class 0 has 1, 0.85, 0.55 and 0.4
