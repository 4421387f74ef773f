"""Fewer steps beside many, image by image."""

import pytest

from evaluation.evaluate import Entry
from evaluation.paired import differences, most_steps
from evaluation.results import table
from evaluation.scores import Scores
from utils.schema import Sampling


def entry(steps: int, geds: list[float], sampler: str = "ancestral") -> Entry:
    rows = [
        {"index": index, "group": index // 2, "seconds": 0.1, "ged_16": ged, "hm_iou_16": 1 - ged}
        | {"diversity_samples_16": 0.5, "diversity_labels": 0.5, "bins": [[1.0], [0.5], [0.5]]}
        for index, ged in enumerate(geds)
    ]
    sampling = Sampling.model_validate({"steps": steps, "sampler": sampler})
    return Entry(f"{sampler} {steps}", "sweep", Scores(rows, [16]), sampling)


MANY = entry(250, [0.1, 0.3, 0.2, 0.6])
FEW = entry(10, [0.2, 0.4, 0.3, 0.7])


def test_what_all_images_lose_alike_is_known_exactly() -> None:
    found = differences(FEW, MANY)
    assert found["ged"].reference == "ancestral 250"
    assert found["ged"].interval == pytest.approx((0.1, 0.1, 0.1))
    assert found["hm_iou"].interval == pytest.approx((-0.1, -0.1, -0.1))
    assert differences(MANY, MANY)["ged"].interval == (0, 0, 0)


def test_images_of_one_patient_are_drawn_together() -> None:
    mean, low, high = differences(entry(10, [0.0, 0.4, 0.1, 0.7]), MANY)["ged"].interval
    assert (mean, low, high) == pytest.approx((0, 0, 0))  # within a patient the differences cancel


def test_others_are_compared_with_the_most_steps_of_the_first_sampler() -> None:
    assert most_steps([FEW, MANY, entry(250, [0.0] * 4, "ddim")]) is MANY
    assert most_steps([Entry("model", "model", MANY.scores, Sampling(steps=250))]) is None


def test_table_has_a_line_for_all_but_the_most_steps() -> None:
    _, *lines = table([MANY, FEW], "mine").partition("image by image, less ancestral 250:")[2].splitlines()
    assert [line.split()[:4] for line in lines] == [["ancestral", "10", "16", "0.1000"]]
    assert "image by image" not in table([MANY], "mine")
