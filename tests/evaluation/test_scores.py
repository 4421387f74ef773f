"""Scoring a predictor: known answers, and that batches do not matter."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from datasets import synthetic
from datasets.loading import EvaluationBatch
from datasets.synthetic import SyntheticLesions, get_dataset
from evaluation import Prediction, Predictor, Scores, always_empty, majority_vote, model_samples, oracle, score
from evaluation.cache import RowStore
from metrics import pairwise_iou
from tests import tiny
from utils.schema import Sampling


@pytest.fixture(scope="module")
def val(tmp_path_factory: pytest.TempPathFactory) -> SyntheticLesions:
    folder: Path = tmp_path_factory.mktemp("scores")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(synthetic, "SPLIT_SIZES", {"val": 40})
        return get_dataset("val", str(folder), side=12)


class Maps:
    """A data set of images of one row of pixels, given by their annotators' label maps."""

    num_classes = 2
    image_channels = 1

    def __init__(self, *labels: list[list[int]], groups: list[int] | None = None) -> None:
        self.labels = [torch.tensor(maps, dtype=torch.uint8)[:, None] for maps in labels]
        self.groups = groups or list(range(len(labels)))

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> dict[str, Any]:
        labels = self.labels[index]
        image = torch.zeros(1, *labels.shape[1:])
        return {"image": image, "labels": labels, "name": str(index), "group": self.groups[index]}


def all_of(
    predictor: Predictor, dataset: Any, *, counts: tuple[int, ...] = (1,), batch: int = 40, **more: Any
) -> Scores:
    return score(predictor, dataset, list(range(len(dataset))), list(counts), batch_size=batch, **more)


def fixed(samples: list[list[list[int]]]) -> Predictor:
    """Predicts the same maps, B x n x W, for its one batch."""
    labels = torch.tensor(samples, dtype=torch.uint8)[:, :, None]
    return lambda batch: Prediction(labels, torch.zeros(len(labels), 2, *labels.shape[-2:]))


def test_empty_map_against_one_annotator_of_two_who_saw_a_lesion() -> None:
    scores = all_of(always_empty(2), Maps([[0, 0], [1, 1]]))
    assert scores.mean("ged", 1) == pytest.approx(2 * 0.5 - 0.5 - 0)  # d: 0 and 1; among annotators 0, 1, 1, 0
    assert scores.mean("hm_iou", 1) == pytest.approx(0.5)
    assert scores.mean("diversity_labels") == pytest.approx(0.5)
    assert scores.mean("diversity_samples", 1) == 0
    assert scores.counts == [1]


def test_majority_vote_against_three_annotators() -> None:
    scores = all_of(majority_vote(2), Maps([[1, 1, 0], [1, 0, 0], [1, 1, 1]]))
    # The vote is 110. IoU with 110, 100, 111: 1, 1/2, 2/3; of 100 with 111: 1/3.
    distance, diversity = (0 + 1 / 2 + 1 / 3) / 3, 2 * (1 / 2 + 1 / 3 + 2 / 3) / 9
    assert scores.mean("ged", 1) == pytest.approx(2 * distance - diversity)
    assert scores.mean("hm_iou", 1) == pytest.approx((1 + 1 / 2 + 2 / 3) / 3)


def test_annotators_themselves_score_perfectly_in_any_order() -> None:
    scores = all_of(fixed([[[1, 1], [0, 0], [1, 0]]]), Maps([[0, 0], [1, 0], [1, 1]]), counts=(3,))
    assert scores.mean("ged", 3) == pytest.approx(0, abs=1e-12)
    assert scores.mean("hm_iou", 3) == pytest.approx(1)
    assert scores.mean("diversity_labels") == pytest.approx(scores.mean("diversity_samples", 3))


def test_absent_annotators_do_not_count() -> None:
    scores = all_of(fixed([[[1, 1]], [[1, 0]]]), Maps([[1, 1]], [[1, 0], [0, 1]]))
    assert scores.values("ged", 1).tolist() == pytest.approx([0, 2 * 0.5 - 0.5])
    assert scores.values("hm_iou", 1).tolist() == pytest.approx([1, 0.5])


def test_rows_are_sorted_and_keep_their_groups() -> None:
    data = Maps([[0, 0]], [[1, 1]], groups=[7, 9])
    scores = score(always_empty(2), data, [1, 0], [1])
    assert [(row["index"], row["group"], row["ged_1"]) for row in scores.rows] == [(0, 7, 0.0), (1, 9, 2.0)]


def test_measures_are_read_at_several_numbers_of_samples_from_one_set_of_draws(val: SyntheticLesions) -> None:
    both = all_of(oracle(val, 8, seed=0), val, counts=(3, 8))
    assert both.counts == [3, 8]
    assert both.mean("ged", 8) < both.mean("ged", 3)
    few = oracle(val, 8, seed=0)
    first_three = all_of(lambda batch: Prediction(few(batch).labels[:, :3], few(batch).probabilities), val, counts=(3,))
    assert np.array_equal(first_three.values("ged", 3), both.values("ged", 3))


@pytest.mark.parametrize("batch", [1, 7])
def test_scores_do_not_depend_on_the_batch(val: SyntheticLesions, batch: int) -> None:
    for predictor in (oracle(val, 5, seed=0), majority_vote(2), always_empty(2)):
        here, there = (all_of(predictor, val, counts=(1, 5), batch=size) for size in (batch, 40))
        for one, other in zip(here.rows, there.rows, strict=True):
            assert {**one, "seconds": 0} == {**other, "seconds": 0}


def test_scores_of_the_model_hardly_depend_on_the_batch(val: SyntheticLesions) -> None:
    predictor = model_samples(tiny.model(), 4, Sampling(steps=3), seed=0, max_batch_size=64)
    here, there = (all_of(predictor, val, counts=(4,), batch=size) for size in (1, 40))
    assert here.mean("ged", 4) == pytest.approx(there.mean("ged", 4), abs=1e-3)
    assert here.mean("hm_iou", 4) == pytest.approx(there.mean("hm_iou", 4), abs=1e-3)


def test_an_interrupted_evaluation_continues_and_gives_the_same(val: SyntheticLesions, tmp_path: Path) -> None:
    predictor, seen = oracle(val, 4, seed=0), 0

    def breaks_down(batch: EvaluationBatch) -> Prediction:
        nonlocal seen
        seen += 1
        if seen == 3:
            raise KeyboardInterrupt
        return predictor(batch)

    with pytest.raises(KeyboardInterrupt):
        all_of(breaks_down, val, counts=(4,), batch=8, store=RowStore(tmp_path / "rows", "a"))
    continued = all_of(breaks_down, val, counts=(4,), batch=8, store=RowStore(tmp_path / "rows", "a"))
    assert seen == 3 + 3  # two of the five batches were not predicted again
    whole = all_of(predictor, val, counts=(4,), batch=8)
    assert [{**row, "seconds": 0} for row in continued.rows] == [{**row, "seconds": 0} for row in whole.rows]


def test_true_probabilities_are_calibrated_and_a_few_draws_are_less_so(val: SyntheticLesions) -> None:
    scores = all_of(oracle(val, 4, seed=0), val, counts=(4,))
    assert scores.calibration_error("bins") < 0.02
    assert scores.calibration_error("bins") < scores.calibration_error("bins_samples")


def expected_ged(dataset: SyntheticLesions, index: int, num_samples: int) -> float:
    """The expectation of GED over samples that follow the true distribution, given the annotators' maps."""
    maps = torch.from_numpy(dataset.group["maps"][index])[None]
    p = torch.from_numpy(dataset.group["map_probabilities"][index])
    labels = dataset[index]["labels"][None]
    to_labels = (1 - pairwise_iou(labels, maps, 2)[0]).mean(0) @ p
    among_labels = (1 - pairwise_iou(labels, labels, 2)).mean()
    among_samples = (1 - 1 / num_samples) * (p @ (1 - pairwise_iou(maps, maps, 2)[0]) @ p)
    return float(2 * to_labels - among_labels - among_samples)


@pytest.mark.parametrize("num_samples", [1, 16])
def test_oracle_scores_its_expectation(val: SyntheticLesions, num_samples: int) -> None:
    ged = all_of(oracle(val, num_samples, seed=1), val, counts=(num_samples,)).values("ged", num_samples)
    off = ged - np.array([expected_ged(val, index, num_samples) for index in range(len(val))])
    assert off.std() > 0
    assert abs(off.mean()) < 4.5 * off.std() / len(off) ** 0.5


def test_interval_holds_the_mean_and_depends_on_the_groups(val: SyntheticLesions) -> None:
    scores = all_of(oracle(val, 4, seed=0), val, counts=(4,))
    interval = scores.interval("ged", 4)
    assert interval.low < interval.mean < interval.high
    assert interval.mean == pytest.approx(scores.mean("ged", 4))
    paired = Scores([{**row, "group": row["index"] // 20} for row in scores.rows], [4])
    assert paired.interval("ged", 4) != interval


def test_time_of_the_prediction_is_measured() -> None:
    def slow(batch: EvaluationBatch) -> Prediction:
        torch.linalg.eigvals(torch.rand(60, 60))
        return always_empty(2)(batch)

    assert all_of(slow, Maps([[1, 1]])).seconds_per_image > 0
