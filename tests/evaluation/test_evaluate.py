"""Scores with known answers, intervals, and the cache."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from datasets.synthetic import SyntheticLesions
from diffusion import PixelwiseClassifier, SamplingConfig
from evaluation import (
    Prediction,
    Predictor,
    always_empty,
    majority_vote,
    oracle,
    score,
    score_model,
)
from metrics import pairwise_iou
from models import CCDM
from tests import tiny
from tests.evaluation.data import Maps, Streets, evaluation, score_all, without_seconds
from tests.evaluation.reports import Evaluated
from utils.errors import UserError


def fixed(samples: list[list[list[int]]], num_classes: int = 2) -> Predictor:
    """Predicts the same maps, B x n x W, for its one batch."""
    labels = torch.tensor(samples, dtype=torch.uint8)[:, :, None]
    probabilities = torch.stack([(labels == label).float().mean(1) for label in range(num_classes)], 1)
    return lambda batch: Prediction(labels, probabilities)


def test_empty_map_against_one_annotator_of_two_who_saw_a_lesion() -> None:
    result = score_all(always_empty(2), Maps([[0, 0], [1, 1]]))
    assert result.mean("ged", 1) == pytest.approx(2 * 0.5 - 0.5 - 0)  # d: 0 and 1; among annotators 0, 1, 1, 0
    assert result.mean("hm_iou", 1) == pytest.approx(0.5)
    assert result.mean("diversity_labels") == pytest.approx(0.5)
    assert result.num_samples == [1]


def test_majority_vote_against_three_annotators() -> None:
    result = score_all(majority_vote(2), Maps([[1, 1, 0], [1, 0, 0], [1, 1, 1]]))
    # The vote is 110. IoU with 110, 100, 111: 1, 1/2, 2/3; of 100 with 111: 1/3.
    distance, diversity = (0 + 1 / 2 + 1 / 3) / 3, 2 * (1 / 2 + 1 / 3 + 2 / 3) / 9
    assert result.mean("ged", 1) == pytest.approx(2 * distance - diversity)
    assert result.mean("hm_iou", 1) == pytest.approx((1 + 1 / 2 + 2 / 3) / 3)


def test_annotators_themselves_score_perfectly_in_any_order() -> None:
    result = score_all(fixed([[[1, 1], [0, 0], [1, 0]]]), Maps([[0, 0], [1, 0], [1, 1]]), num_samples=(3,))
    assert result.mean("ged", 3) == pytest.approx(0, abs=1e-12)
    assert result.mean("hm_iou", 3) == pytest.approx(1)
    assert result.mean("diversity_labels") == pytest.approx(result.mean("diversity_samples", 3))


def test_absent_annotators_do_not_count() -> None:
    result = score_all(fixed([[[1, 1]], [[1, 0]]]), Maps([[1, 1]], [[1, 0], [0, 1]]))
    assert result.values("ged", 1).tolist() == pytest.approx([0, 2 * 0.5 - 0.5])
    assert result.values("hm_iou", 1).tolist() == pytest.approx([1, 0.5])


def test_metrics_without_a_meaning_are_left_out() -> None:
    data = Maps([[0, 1], [1, 1]])
    names = {name: set(score_all(predictor, data).images[0].values) for name, predictor in (
        ("vote", majority_vote(2)), ("empty", always_empty(2)), ("two", fixed([[[0, 1], [1, 1]]]))
    )}  # fmt: skip
    assert names["empty"] - names["vote"] == {"dice_of_mean", "iou_of_mean", "brier", "ece", "ece_samples", "soft_dice"}
    assert names["two"] - names["empty"] == {"ncc", "ged_unbiased", "diversity_agreement"}
    assert "diversity_samples_2" in score_all(fixed([[[0, 1], [1, 1]]]), data, num_samples=(2,)).images[0].values


def test_void_pixels_of_any_annotator_are_left_out_for_several_annotators() -> None:
    # Class 3 is void. Without the void pixels (the third and the fourth) the maps are those of two pixels.
    data = Maps([[0, 1, 3, 0], [1, 1, 0, 3]], num_classes=4, void=3)
    result = score_all(fixed([[[0, 1, 2, 2], [1, 1, 1, 0]]], 4), data, num_samples=(1, 2))
    same = score_all(fixed([[[0, 1], [1, 1]]], 3), Maps([[0, 1], [1, 1]], num_classes=3), num_samples=(1, 2))
    assert result.task == "distribution"
    (_, values), (_, expected) = without_seconds(result)[0], without_seconds(same)[0]
    assert values == pytest.approx({name: pytest.approx(np.array(value)) for name, value in expected.items()})
    assert values["ged_2"] == 0


def test_samples_that_are_void_where_the_annotators_are_not_count_as_the_next_class() -> None:
    data = Maps([[1, 1], [1, 0]], num_classes=3, void=2)
    (annotated,) = (score_all(fixed([[[1, 2], [1, 1]]], 3), data, num_samples=(2,)).images,)
    assert annotated[0].values["hm_iou_2"] == pytest.approx((1 + 0.5) / 2)  # as if both were [1, 1]


def test_image_that_is_all_void_is_refused_by_name() -> None:
    with pytest.raises(UserError, match="image 1 has no annotations"):
        score_all(fixed([[[0, 0]], [[0, 0]]], 3), Maps([[0, 1], [1, 1]], [[2, 1], [1, 2]], num_classes=3, void=2))


def test_scores_are_sorted_and_keep_their_groups() -> None:
    result = score(always_empty(2), Maps([[0, 0]], [[1, 1]], groups=[7, 9]), [1, 0], [1])  # type: ignore[arg-type]
    assert [(image.index, image.group, image.values["ged_1"]) for image in result.images] == [(0, 7, 0.0), (1, 9, 2.0)]


def test_metrics_at_several_numbers_of_samples_come_from_one_set(val: SyntheticLesions) -> None:
    both = score_all(oracle(val, 8), val, num_samples=(3, 8))
    assert both.num_samples == [3, 8]
    assert both.mean("ged", 8) < both.mean("ged", 3)
    eight = oracle(val, 8)
    three = score_all(lambda b: Prediction(eight(b).labels[:, :3], eight(b).probabilities), val, num_samples=(3,))
    assert np.array_equal(three.values("ged", 3), both.values("ged", 3))


@pytest.mark.parametrize("batch_size", [1, 7])
def test_scores_do_not_depend_on_the_batch(val: SyntheticLesions, batch_size: int) -> None:
    for predictor in (oracle(val, 5), majority_vote(2), always_empty(2)):
        here, there = (score_all(predictor, val, num_samples=(1, 5), batch_size=size) for size in (batch_size, 40))
        assert without_seconds(here) == without_seconds(there)


def test_time_of_the_prediction_is_measured() -> None:
    assert score_all(always_empty(2), Maps([[1, 1]])).mean("seconds") > 0


def test_true_probabilities_are_calibrated_and_a_few_samples_are_less_so(val: SyntheticLesions) -> None:
    result = score_all(oracle(val, 4), val, num_samples=(4,))
    assert result.mean("ece") < 0.02
    assert result.mean("ece") < result.mean("ece_samples")


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
    ged = score_all(oracle(val, num_samples, seed=1), val, num_samples=(num_samples,)).values("ged", num_samples)
    off = ged - np.array([expected_ged(val, index, num_samples) for index in range(len(val))])
    assert off.std() > 0
    assert abs(off.mean()) < 4.5 * off.std() / len(off) ** 0.5


# A model's scores, as training and ddpm_eval.py ask for them.


def test_model_is_scored_by_the_task_of_the_data(val: SyntheticLesions) -> None:
    calls: list[int] = []
    lesions = score_model(
        tiny.model(),
        val,
        [0, 5, 9],
        [4],
        SamplingConfig(steps=3),
        0,
        batch_size=2,
        before_batch=lambda: calls.append(1),
    )
    assert lesions.headline_metrics == [("ged", -1), ("hm_iou", 1)]
    assert len(calls) == 2
    streets = score_model(tiny.model(4, 3), Streets(), range(5), [2], SamplingConfig(steps=3), 0)  # type: ignore[arg-type]
    assert streets.headline_metrics == [("miou", 1)]
    for result in (lesions, streets):
        for name, _ in result.headline_metrics:
            assert 0 <= result.mean(name, result.num_samples[0]) <= 2


def test_steps_default_to_those_of_a_short_process(val: SyntheticLesions) -> None:
    assert evaluation(val).sampling.steps == 10
    classifier = CCDM(tiny.model().network, PixelwiseClassifier(2))
    assert evaluation(val, classifier).sampling == SamplingConfig(steps=1, last_step="draw")


def test_sweep_is_at_the_first_number_of_samples_without_repetitions(val: SyntheticLesions, tmp_path: Path) -> None:
    changes = {"num_samples": [4, 2, 2], "sweep": {"steps": [3, 2, 3], "samplers": ["ddim", "ddim"]}}
    results = evaluation(val, sampling=SamplingConfig(steps=2), dataset_val_max_size=2, **changes).run(tmp_path)
    assert results[0].num_samples == [2, 4]
    assert [(r.name, r.num_samples) for r in results if r.kind == "sweep"] == [("ddim 2", [4]), ("ddim 3", [4])]


def test_likelihood_is_averaged_over_the_annotators(val: SyntheticLesions, tmp_path: Path) -> None:
    model = tiny.model()
    settings = {"bits_per_pixel": True, "dataset_val_max_size": 2, "sampling": SamplingConfig(steps=2)}
    results = evaluation(val, model, num_samples=1, **settings).run(tmp_path)
    for image in results[0].images:
        item = val[image.index]
        each = [float(model.bits_per_pixel(item["image"][None], labels[None])) for labels in item["labels"]]
        assert results[0].values("bits_per_pixel")[results[0].images.index(image)] == pytest.approx(np.mean(each))
    with pytest.raises(UserError, match="bits_per_pixel"):
        evaluation(Streets(), **settings)


def test_several_annotators_with_a_void_class_are_evaluated_as_a_distribution(tmp_path: Path) -> None:
    found = Evaluated(tiny.model(4), Annotated(), tmp_path, num_samples=2, sampling=SamplingConfig(steps=2))
    assert found.contents["task"] == "distribution"
    rows = [row[0] for row in found.page.tables["Results by number of samples"] if len(row) == 5]
    assert rows == ["Predictor", "model", "majority vote", "always empty", "annotators"]
    assert "pixels that one of them left void are excluded" in found.page.text
    assert "void" in [name.strip() for name in re.findall(r"</span>(.*?)</li>", found.html)]


class Annotated:
    """Three images of two annotators, who leave different pixels void."""

    num_classes, image_channels, void_class, class_names = 4, 1, 3, ("background", "a", "b", "void")

    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> dict[str, Any]:
        labels = torch.randint(3, (2, 8, 8), generator=torch.Generator().manual_seed(index)).to(torch.uint8)
        labels[0, 0], labels[1, :, 0] = 3, 3
        return {"image": tiny.images(1, seed=index)[0], "labels": labels, "name": f"{index}"}
