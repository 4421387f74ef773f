"""What is scored: the model, the oracle and the baselines."""

from pathlib import Path

import pytest
import torch

from datasets.loading import EvaluationBatch, evaluation_batches
from datasets.synthetic import SyntheticLesions, get_dataset
from evaluation import always_empty, majority_vote, model_samples, oracle
from tests import tiny
from utils.schema import Sampling


def batch_of(labels: list[list[list[int]]], present: list[list[bool]] | None = None) -> EvaluationBatch:
    """A batch of images of one row of pixels: `labels` are B x A x W."""
    maps = torch.tensor(labels, dtype=torch.uint8)[:, :, None]
    number = len(maps)
    there = torch.ones(maps.shape[:2], dtype=torch.bool) if present is None else torch.tensor(present)
    images = torch.zeros(number, 1, *maps.shape[-2:])
    return EvaluationBatch(images, maps, there, torch.arange(number), ["name"] * number, list(range(number)), [])


@pytest.fixture
def val(data_folder: Path) -> SyntheticLesions:
    return get_dataset("val", str(data_folder), tiny.SIDE)


def whole(dataset: SyntheticLesions) -> EvaluationBatch:
    (batch,) = evaluation_batches(dataset, list(range(len(dataset))), len(dataset), workers=0)
    return batch


def test_majority_is_what_most_annotators_chose() -> None:
    prediction = majority_vote(3)(batch_of([[[0, 1, 2], [0, 1, 1], [2, 0, 2]]]))
    assert prediction.labels.tolist() == [[[[0, 1, 2]]]]
    assert prediction.labels.dtype == torch.uint8
    expected = torch.tensor([[2, 1, 0], [0, 2, 1], [1, 0, 2]]) / 3
    assert torch.allclose(prediction.probabilities[0, :, 0].double(), expected.double())


def test_of_a_tie_the_lowest_class_wins() -> None:
    assert majority_vote(3)(batch_of([[[2, 1], [1, 0]]])).labels.tolist() == [[[[1, 0]]]]


def test_absent_annotators_have_no_vote() -> None:
    batch = batch_of([[[1, 1], [0, 0], [0, 0]], [[1, 0], [1, 0], [0, 1]]], [[True, False, False], [True] * 3])
    assert majority_vote(2)(batch).labels.tolist() == [[[[1, 1]]], [[[1, 0]]]]


def test_always_empty_is_one_map_of_background() -> None:
    prediction = always_empty(3)(batch_of([[[1, 2], [2, 2]]]))
    assert prediction.labels.tolist() == [[[[0, 0]]]]
    assert prediction.probabilities[0, :, 0].tolist() == [[1, 1], [0, 0], [0, 0]]


def test_oracle_draws_what_the_data_set_draws_whatever_the_batch(val: SyntheticLesions) -> None:
    predict = oracle(val, num_samples=5, seed=3)
    together = predict(whole(val)).labels
    assert together.shape == (4, 5, tiny.SIDE, tiny.SIDE)
    alone = [predict(batch).labels for batch in evaluation_batches(val, list(range(4)), 1, workers=0)]
    assert torch.equal(together, torch.cat(alone))
    assert not torch.equal(together, oracle(val, 5, seed=4)(whole(val)).labels)


def test_oracle_knows_the_true_probabilities(val: SyntheticLesions) -> None:
    prediction = oracle(val, num_samples=3000, seed=0)(whole(val))
    expected = torch.stack([val.label_probabilities(index) for index in range(4)])
    assert torch.equal(prediction.probabilities, expected.float())
    frequencies = prediction.labels.double().mean(1)
    assert (frequencies - expected[:, 1]).abs().max() < 4.5 * 0.5 / 3000**0.5


def test_model_is_sampled_as_the_settings_say(val: SyntheticLesions) -> None:
    model, batch = tiny.model(), whole(val)
    prediction = model_samples(model, 3, Sampling(steps=4, sampler="ddim", eta=0.5), seed=7, max_batch_size=5)(batch)
    expected = model.sample(batch.images, 3, 4, "ddim", 7, eta=0.5, max_batch_size=5)
    assert torch.equal(prediction.labels, expected.labels)
    assert torch.equal(prediction.probabilities, expected.probabilities)
    other = model.sample(batch.images, 3, 4, "ancestral", 7, max_batch_size=5)
    assert not torch.equal(prediction.labels, other.labels)
