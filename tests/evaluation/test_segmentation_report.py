"""The report of a semantic segmentation: its numbers are those of results.json, and it needs nothing but itself."""

import re
from typing import Any

import numpy as np
import pytest
import torch

from datasets.loading import evaluation_batches
from evaluation.classes import Classes
from evaluation.fusion import fused_samples, label_map
from evaluation.segmentation_gallery import own_scores, prediction_cells
from models import CCDM, ProcessConfig
from tests import tiny
from tests.evaluation.reports import (
    HOSTILE,
    NONE,
    Page,
    Segment,
    Segmented,
    check_needs_nothing_from_elsewhere,
    decoded,
)

SIZES = ["8 \N{MULTIPLICATION SIGN} 16", "original size"]


def numbers(result: dict[str, Any], count: int) -> list[str]:
    """The mean IoU at each size as it stands in a table."""
    intervals = [measure["mean_iou"] for measure in result["measures"] if measure["num_samples"] == count]
    return [f"{100 * i['mean']:.2f} [{100 * i['low']:.2f}, {100 * i['high']:.2f}]" for i in intervals]


def model_of(segmented: Segmented) -> dict[str, Any]:
    result: dict[str, Any] = segmented.contents["results"][0]
    return result


def test_table_by_number_of_samples_holds_the_numbers_of_results_json(segmented: Segmented) -> None:
    head, *rows = segmented.page.tables["Mean IoU by number of samples"]
    assert head == ["Predictor", "n", *SIZES]
    model = model_of(segmented)
    assert rows == [["model", "1", *numbers(model, 1)], *([str(n), *numbers(model, n)] for n in (2, 4))]


def test_table_of_the_sweep_holds_the_numbers_of_results_json(segmented: Segmented) -> None:
    head, *rows = segmented.page.tables["Mean IoU by sampler and steps"]
    assert head == ["Sampler", "Steps", *SIZES, "s/image"]
    sweep = [result for result in segmented.contents["results"] if result["kind"] == "sweep"]
    assert [rows[0][0], rows[2][0]] == ["ancestral", "ddim"]
    assert [row[-4:] for row in rows] == [
        [str(r["sampling"]["steps"]), *numbers(r, 1), f"{r['seconds_per_image']:.3f}"] for r in sweep
    ]


def test_table_of_the_classes_holds_the_numbers_of_results_json(segmented: Segmented) -> None:
    head, *rows = segmented.page.tables["IoU by class"]
    assert head == ["Class", "Pixels", *SIZES]
    model = model_of(segmented)
    shown = [measure["iou"] for measure in model["measures"] if measure["num_samples"] == 4]
    assert [row[0] for row in rows] == list(shown[0]) == segmented.classes.names
    for row in rows:
        assert row[2:] == [f"{100 * iou[row[0]]:.2f}" for iou in shown]
    pixels = np.array(model["confusion"]["network"]).sum(1)
    assert [row[1] for row in rows] == [f"{100 * share:.2f}" for share in pixels / pixels.sum()]
    swatches = [attributes["style"] for attributes in segmented.page.all("span") if "style" in attributes]
    assert swatches == ["--colour: rgb(128, 64, 128)", "--colour: rgb(70, 70, 70)", "--colour: rgb(0, 0, 142)"]


def test_confusion_matrix_of_results_json_gives_its_ious(segmented: Segmented) -> None:
    model = model_of(segmented)
    for measure in model["measures"]:
        if measure["num_samples"] == 4:
            matrix = np.array(model["confusion"][measure["size"]])
            hits = matrix.diagonal()
            iou = hits / (matrix.sum(0) + matrix.sum(1) - hits)
            assert list(measure["iou"].values()) == pytest.approx(iou.tolist())


def test_most_frequent_mistakes_are_told(segmented: Segmented) -> None:
    matrix = np.array(model_of(segmented)["confusion"]["network"])
    for true in (0, 2):
        shares = matrix[true] / matrix[true].sum()
        worst = int(np.argmax(shares * (np.arange(3) != true)))
        names = segmented.classes.names
        assert f"{names[true]} is taken for {names[worst]} ({100 * shares[worst]:.0f} %)" in segmented.page.text


def test_page_says_what_was_evaluated_and_how(segmented: Segmented) -> None:
    text = segmented.page.text
    assert "5 images of the val split; ancestral sampler, 3 of 50 steps, seed 0" in text.replace(
        "test split", "val split"
    )
    assert "4 samples an image, fused by confidence." in text
    for size, number in zip(SIZES, numbers(model_of(segmented), 4), strict=True):
        assert f"Mean IoU of 4 samples, {size} (higher is better)\n{number.replace(' [', ' % [')}" in text
    for words in segmented.contents["protocol"].values():
        assert words in text
    for words in (
        "0123abcd",
        "evaluation_vote_strategy",
        "optim.name",
        "reports no such numbers for my.",
    ):
        assert words in text


def test_numbers_of_the_paper_stand_beside(segmented: Segmented) -> None:
    page = Page(segmented.render(published_mean_iou_in_percent={"1": 53.2, "4": 56.0, "10": 56.2}))
    rows = page.tables["Mean IoU by number of samples"]
    assert rows[-3:] == [["paper", "1", "53.2", NONE], ["4", "56.0", NONE], ["10", "56.2", NONE]]
    assert page.text.count("paper 56.0 %") == 1  # above the number at the network's size only
    assert "500 images of the validation split" in page.text


def test_spread_over_seeds_is_told(segmented_with: Segment) -> None:
    segmented = segmented_with(seeds=[0, 1], n_validation_images=0)
    spread = [m["standard_deviation_over_seeds"] for m in model_of(segmented)["measures"] if m["num_samples"] == 4]
    said = f"deviation of {100 * spread[0]:.2f} and {100 * spread[1]:.2f} percentage points"
    assert said in segmented.page.text
    assert "images" not in [attributes["aria-labelledby"] for attributes in segmented.page.all("section")]


def test_page_needs_nothing_from_elsewhere(segmented: Segmented) -> None:
    check_needs_nothing_from_elsewhere(segmented.html.replace("http://example.org", ""))  # of the hostile names


def test_page_is_well_formed_with_headings_in_order(segmented: Segmented) -> None:
    page = segmented.page
    assert len(page.all("h1")) == len(page.all("main")) == 1
    labels = [attributes["aria-labelledby"] for attributes in page.all("section")]
    assert labels == [attributes["id"] for attributes in page.all("h2") if "id" in attributes]
    assert labels == ["results", "steps", "classes", "images", "protocol"]


def test_names_of_classes_and_images_are_escaped(segmented: Segmented) -> None:
    assert segmented.classes.names[0] == HOSTILE
    page = Page(segmented.render(dataset_file=HOSTILE))
    assert page.all("script") == []
    assert all("onerror" not in attributes for attributes in page.all("img"))
    assert len(page.all("img")) == len(segmented.page.all("img")) == 1 + 3 * 5
    assert page.text.count(HOSTILE) >= 6
    assert "<script" not in segmented.html


def test_same_evaluation_gives_the_same_bytes(segmented: Segmented) -> None:
    assert segmented.html == segmented.render()


def test_pictures_show_the_prediction_that_was_scored(segmented: Segmented) -> None:
    pictures = {attributes["alt"]: attributes for attributes in segmented.page.all("img")}
    palette, settings = segmented.classes.palette(), segmented.settings
    draw = fused_samples(segmented.model, [4], [0, 1, 2], "confidence", settings.sampling, 0, None)
    for exhibit in segmented.exhibits:
        (batch,) = evaluation_batches(segmented.data, [exhibit.row["index"]], 1, workers=0)
        fused, name = draw(batch)[0, 0], exhibit.row["name"]
        predicted, truth = label_map(fused, (8, 16)), batch.labels[0, 0]
        assert np.array_equal(decoded(pictures[f"prediction of {name}"]), palette[predicted])
        assert np.array_equal(decoded(pictures[f"label map of {name}"]), palette[truth.long()])
        right = (decoded(pictures[f"where they differ of {name}"]) == 255).all(-1)
        assert np.array_equal(right, predicted == truth)
        share = right.sum() / int((truth != 3).sum())
        assert own_scores(exhibit.row, 4)[1] == pytest.approx(share)
        assert f"{100 * share:.2f} % of the pixels right" in segmented.page.text


def test_images_are_ranked_by_their_own_mean_iou(segmented: Segmented) -> None:
    values = sorted(own_scores(row, 4)[0] for row in segmented.entries[0].per_seed[0])
    shown = {exhibit.rank: own_scores(exhibit.row, 4)[0] for exhibit in segmented.exhibits}
    assert (shown["best"], shown["median"], shown["worst"]) == (values[-1], values[2], values[0])


def test_entropy_is_that_of_the_classes_without_void() -> None:
    fused = torch.tensor([[[0.25, 0.5]], [[0.25, 0.0]]])  # half of both pixels is void
    *_, differ, entropy = prediction_cells(fused, torch.tensor([[2, 1]]), np.zeros((3, 3), dtype=np.uint8))
    assert entropy.values is not None
    assert entropy.values.tolist() == [[1, 0]]
    assert entropy.highest == 1
    assert differ.pixels()[0].tolist() == [[150, 156, 163], [213, 94, 0]]


def test_class_that_does_not_occur_has_a_dash_and_no_nan(segmented: Segmented) -> None:
    name = segmented.classes.names[1]
    model = model_of(segmented)
    measures = [{**m, "iou": {**m["iou"], name: None}} for m in model["measures"]]
    page = Page(segmented.render(results=[{**model, "measures": measures}]))
    assert page.tables["IoU by class"][2] == [name, "0.00", NONE, NONE]
    assert re.search(r"\bnan\b", page.text, re.IGNORECASE) is None


def test_single_image_has_no_interval(segmented_with: Segment) -> None:
    segmented = segmented_with(dataset_val_max_size=1, evaluations=[2])
    assert "[" not in segmented.page.tables["Mean IoU by number of samples"][1][2]
    assert re.search(r"\bnan\b", segmented.page.text, re.IGNORECASE) is None


def test_classifier_has_one_sample(segmented_with: Segment) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = CCDM(tiny.network_shape(4, 3), ProcessConfig(1, "single_jump")).eval()
    page = segmented_with(model).page
    assert [row[:2] for row in page.tables["Mean IoU by number of samples"][1:]] == [["model", "1"]]
    assert "Mean IoU of 1 sample," in page.text


def test_classes_without_colours_get_some_and_void_is_black() -> None:
    palette = Classes([0, 1, 2], ["a", "b", "c"], np.arange(3, dtype=np.uint8), None).palette()
    assert len({tuple(colour) for colour in palette.tolist()}) == 4
    assert palette[3].tolist() == [0, 0, 0]
