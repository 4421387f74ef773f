"""The report: its numbers are those of results.json, and it needs nothing but itself."""

import base64
import re
from typing import Any

import numpy as np
import pytest
import torch

from datasets.loading import evaluation_batches
from evaluation.figures import headline
from evaluation.gallery import Exhibit, film_strip, ranked
from evaluation.report import render_report
from evaluation.scores import Scores
from models import CCDM, ProcessConfig
from tests import tiny
from tests.evaluation.reports import (
    HOSTILE,
    NONE,
    Evaluate,
    Evaluated,
    Page,
    check_needs_nothing_from_elsewhere,
    decoded,
)
from utils.schema import Sampling


def in_words(number: dict[str, Any]) -> str:
    """A number as it stands in a table."""
    ends = "" if number["low"] is None else f" [{number['low']:.3f}, {number['high']:.3f}]"
    return f"{number['mean']:.4f}{ends}"


def measures(result: dict[str, Any]) -> dict[tuple[str, int | None], str]:
    return {(row["measure"], row["num_samples"]): in_words(row) for row in result["measures"]}


def test_table_by_number_of_samples_holds_the_numbers_of_results_json(evaluated: Evaluated) -> None:
    expected = []
    for result in evaluated.contents["results"]:
        if result["kind"] != "sweep":
            values = measures(result)
            counts = sorted({count for _, count in values if count})
            for count in counts:
                row = [values[name, count] for name in ("ged", "hm_iou", "diversity_samples")]
                expected.append([*([result["name"]] if count == counts[0] else []), str(count), *row])
    head, *rows = evaluated.page.tables["Results by number of samples"]
    assert head == ["Predictor", "n", "GED", "HM-IoU", "Diversity of samples"]
    assert rows == expected
    assert [len(row) for row in rows] == [5, 4, 4, 5, 4, 4, 5, 5]


def test_table_of_other_measures_holds_the_numbers_of_results_json(evaluated: Evaluated) -> None:
    rows = {row[0]: row[1:] for row in evaluated.page.tables["Measures that take all samples"]}
    results = [result for result in evaluated.contents["results"] if result["kind"] != "sweep"]
    assert rows["Measure"] == [result["name"] for result in results]
    for key, name in (("max_dice", "Matched Dice"), ("ncc", "NCC"), ("brier", "Brier score")):
        assert rows[name] == [measures(result)[key, None] for result in results]
    assert rows["ECE of probabilities"] == [f"{result['expected_calibration_error']:.4f}" for result in results]


def test_table_of_the_sweep_holds_the_numbers_of_results_json(evaluated: Evaluated) -> None:
    _, *rows = evaluated.page.tables["Results by sampler and steps"]
    sweep = [result for result in evaluated.contents["results"] if result["kind"] == "sweep"]
    assert [row[-6] for row in rows] == ["2", "5", "2", "5"]
    assert [rows[0][0], rows[2][0]] == ["ancestral", "ddim"]
    for row, result in zip(rows, sweep, strict=True):
        seconds = f"{result['seconds_per_image']:.3f}"
        differences = [in_words(difference) for difference in result["differences"]]
        assert row[-5:] == [measures(result)["ged", 1], measures(result)["hm_iou", 1], *differences, seconds]
    assert "from ancestral 5" in evaluated.page.text


def test_page_says_what_was_evaluated_and_how(evaluated: Evaluated) -> None:
    text = evaluated.page.text
    model = evaluated.contents["results"][0]
    assert "GED4 (lower is better)" in text
    assert measures(model)["ged", 4] in text
    assert "4 images of the test split; ancestral sampler, 3 of 50 steps, seed 0" in text
    for words in evaluated.contents["protocol"].values():
        assert words in text
    for words in ("0123abcd", "sampling.steps", "optim.name", "The paper reports no such numbers"):
        assert words in text


def test_numbers_of_the_paper_stand_beside_with_what_differs(evaluated: Evaluated) -> None:
    page = Page(evaluated.render(dataset_file="datasets.lidc"))
    rows = page.tables["Results by number of samples"]
    place = next(place for place, row in enumerate(rows) if row[0] == "paper, LIDCv1")
    assert rows[place][1:] == ["16", "0.212", "0.623", NONE]
    assert rows[place + 2] == ["50", "0.187", NONE, NONE]
    assert "never published by patient" in page.text
    assert "Here samples take 3 steps, and 4 images are scored." in page.text


def test_spread_over_seeds_is_told(evaluated_with: Evaluate) -> None:
    evaluated = evaluated_with(seeds=[0, 1], n_validation_images=0)
    spread = evaluated.contents["results"][0]["standard_deviation_over_seeds"]
    assert f"GED4 has a standard deviation of {spread['ged_4']:.4f}" in evaluated.page.text


def test_page_needs_nothing_from_elsewhere(evaluated: Evaluated) -> None:
    check_needs_nothing_from_elsewhere(evaluated.html)


def test_whatever_users_name_is_escaped(evaluated: Evaluated) -> None:
    exhibits = [
        Exhibit(shown.rank, {**shown.row, "name": HOSTILE}, shown.panel, shown.film) for shown in evaluated.exhibits
    ]
    contents = {
        **evaluated.contents,
        "dataset_file": HOSTILE,
        "training_settings": {HOSTILE: {HOSTILE: HOSTILE}},
        "checkpoint": {**evaluated.contents["checkpoint"], "path": HOSTILE},
    }
    text = render_report(contents, evaluated.entries, exhibits, 50)
    page = Page(text)
    assert page.all("script") == []
    assert all("onerror" not in attributes for attributes in page.all("img"))
    assert len(page.all("img")) == len(evaluated.page.all("img"))
    assert page.text.count(HOSTILE) >= 8
    assert any(attributes["alt"] == f"sample 1 of {HOSTILE}" for attributes in page.all("img"))
    assert "<script" not in text


def test_same_evaluation_gives_the_same_bytes(evaluated: Evaluated) -> None:
    assert evaluated.html == evaluated.render()


def test_page_is_well_formed_with_headings_in_order(evaluated: Evaluated) -> None:
    page = evaluated.page
    assert page.all("html") == [{"lang": "en"}]
    assert len(page.all("h1")) == len(page.all("main")) == 1
    labels = [attributes["aria-labelledby"] for attributes in page.all("section")]
    assert labels == [attributes["id"] for attributes in page.all("h2") if "id" in attributes]
    assert labels == ["results", "samples", "steps", "calibration", "images", "process", "protocol"]


def test_pictures_have_words_and_their_true_size(evaluated: Evaluated) -> None:
    pictures = evaluated.page.all("img")
    assert len({attributes["alt"] for attributes in pictures}) > 10
    for attributes in pictures:
        assert len(attributes["alt"]) > 10
        if attributes["src"].startswith("data:image/png"):
            height, width, channels = decoded(attributes).shape
            assert (str(width), str(height), channels) == (attributes["width"], attributes["height"], 3)
        else:
            svg = base64.b64decode(attributes["src"].partition(";base64,")[2]).decode()
            assert svg.startswith("<svg")
    curves = [attributes["alt"] for attributes in pictures if "svg" in attributes["src"]]
    assert [words.partition(":")[0] for words in curves] == [
        "GED over the number of samples",
        "HM-IoU over the number of samples",
        "GED over steps",
        "HM-IoU over steps",
        "Seconds per image over steps",
        "Reliability diagram",
    ]
    assert f"{headline(evaluated.entries).scores.mean('ged', 2):.3f} at 2" in curves[0]


def test_pictures_show_the_samples_that_were_scored(evaluated: Evaluated) -> None:
    shown = evaluated.exhibits[0]
    (batch,) = evaluation_batches(evaluated.data, [shown.row["index"]], 1, workers=0)
    drawn = evaluated.model.sample(batch.images, 4, 3).labels[0]
    pictures = {attributes["alt"]: attributes for attributes in evaluated.page.all("img")}
    for number in range(4):
        pixels = decoded(pictures[f"sample {number + 1} of {shown.row['name']}"])
        assert np.array_equal(pixels[..., 0], drawn[number] * 255)
    assert np.array_equal(decoded(pictures[f"annotator 1 of {shown.row['name']}"])[..., 1], batch.labels[0, 0] * 255)


def test_absent_annotators_are_called_absent(evaluated: Evaluated) -> None:
    shown = evaluated.exhibits[0]
    absent = [*shown.panel[:1], type(shown.panel[1])("annotator 1", None, shown.panel[1].colours), *shown.panel[2:]]
    exhibit = Exhibit(shown.rank, shown.row, absent, [])
    page = Page(render_report(evaluated.contents, evaluated.entries, [exhibit], 50))
    assert page.text.count("absent") == 1
    assert "process" not in [attributes["aria-labelledby"] for attributes in page.all("section")]


def test_pictures_of_large_images_are_made_smaller(evaluated: Evaluated) -> None:
    shown = evaluated.exhibits[0]
    cell = type(shown.panel[0])("image", np.zeros((300, 600, 3)), shown.panel[0].colours)
    page = Page(render_report(evaluated.contents, evaluated.entries, [Exhibit("best", shown.row, [cell], [])], 50))
    (size,) = [(a["width"], a["height"]) for a in page.all("img") if a["alt"].startswith("image of")]
    assert size == ("200", "100")
    assert "cells wide" in [attributes["class"] for attributes in page.all("ul")]


def scores_of(values: list[float]) -> Scores:
    return Scores([{"index": index, "ged_1": value} for index, value in enumerate(values)], [1])


@pytest.mark.parametrize(
    ("values", "number", "expected"),
    [
        ([5, 3, 1, 4, 2, 0, 6], 3, {"best": [5], "median": [1], "worst": [6]}),
        ([5, 3, 1, 4, 2, 0, 6], 6, {"best": [5, 2], "median": [4, 1], "worst": [6, 0]}),
        ([1, 0, 2], 1, {"best": [1], "median": [0], "worst": [2]}),
        ([1, 0], 6, {"best": [1, 0]}),
        ([1, 0], 3, {"best": [1], "worst": [0]}),
        ([1], 3, {"best": [0]}),
        ([1, 0], 0, {}),
    ],
)
def test_images_are_ranked_by_ged(values: list[float], number: int, expected: dict[str, list[int]]) -> None:
    chosen = ranked(scores_of(values), number)
    assert {rank: [row["index"] for row in rows] for rank, rows in chosen.items()} == expected


@pytest.mark.parametrize(
    ("steps", "times"),
    [(3, [50, 26, 13]), (1, [50]), (None, [50, 44, 38, 31, 25, 19, 12, 6])],
)
def test_film_goes_from_noise_to_the_first_sample(evaluated: Evaluated, steps: int | None, times: list[int]) -> None:
    settings = evaluated.settings.model_copy(update={"sampling": Sampling(steps=steps)})
    (batch,) = evaluation_batches(evaluated.data, [2], 1, workers=0)
    film = film_strip(evaluated.model, batch, settings)
    assert [cell.title for cell in film] == ["image", *(f"t = {time}" for time in times), "sample 1"]
    chain = {step.s: step.x_s[0] for step in evaluated.model.trajectory(batch.images, steps)}
    for time, cell in zip(times[1:], film[2:-1], strict=True):
        assert np.array_equal(cell.values, chain[time])
    assert np.array_equal(film[-1].values, evaluated.model.sample(batch.images, 1, steps).labels[0, 0])
    assert film[1].values is not None
    assert 0.2 < film[1].values.mean() < 0.8
    assert len(evaluated.model._forward_pre_hooks) == 0


def test_single_image_has_no_interval_and_no_nan(evaluated_with: Evaluate) -> None:
    evaluated = evaluated_with(dataset_val_max_size=1, evaluations=[2], n_validation_images=0)
    page = evaluated.page
    assert re.search(r"\bnan\b", page.text, re.IGNORECASE) is None
    assert "[" not in page.tables["Results by number of samples"][1][2]
    labels = [attributes["aria-labelledby"] for attributes in page.all("section")]
    assert labels == ["results", "calibration", "protocol"]


def test_classifier_is_shown_by_its_draws_and_without_film(evaluated_with: Evaluate) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = CCDM(tiny.network_shape(), ProcessConfig(1, "single_jump")).eval()
    page = evaluated_with(model).page
    rows = page.tables["Results by number of samples"]
    assert [row[0] for row in rows if len(row) == 5][1:3] == ["arg max per pixel", "draws per pixel"]
    assert rows[4][2] in page.text.partition("Results")[0]
    assert page.all("section")[-1] == {"aria-labelledby": "protocol"}
    assert "The reverse process" not in page.text
