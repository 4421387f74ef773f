"""The report: its numbers are those of results.json, and it needs nothing but itself."""

import base64
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from diffusion import PixelwiseClassifier, SamplingConfig
from evaluation.published import published_results
from evaluation.report import main, write_report
from evaluation.tables import as_text, results_csv
from models import CCDM
from tests import tiny
from tests.evaluation.data import HOSTILE
from tests.evaluation.reports import (
    NONE,
    Evaluate,
    Evaluated,
    Page,
    check_needs_nothing_from_elsewhere,
    decoded,
    section_ids,
)  # fmt: skip
from tests.tiny import refusal
from utils.errors import UserError

SIZES = ["Mean IoU, 8\N{MULTIPLICATION SIGN}16", "Mean IoU, original size"]


@pytest.fixture(params=["distribution", "segmentation"])
def either(request: pytest.FixtureRequest) -> Evaluated:
    """An evaluation of each task."""
    name = {"distribution": "evaluated", "segmentation": "segmented"}[request.param]
    found: Evaluated = request.getfixturevalue(name)
    return found


def in_words(row: dict[str, Any] | None) -> str:
    """A number as it is displayed in a table."""
    if row is None:
        return NONE
    scale, digits, ends = (100, 2, 2) if row["metric"].startswith("miou") else (1, 4, 3)
    interval = f" [{scale * row['low']:.{ends}f}, {scale * row['high']:.{ends}f}]" if row["low"] is not None else ""
    return f"{scale * row['mean']:.{digits}f}{interval}"


# Numbers.


def test_table_by_number_of_samples_holds_the_numbers_of_results_json(evaluated: Evaluated) -> None:
    head, *rows = evaluated.page.tables["Results by number of samples"]
    assert head == ["Predictor", "n", "GED", "HM-IoU", "Diversity"]
    expected = []
    for result in evaluated.contents["results"]:
        if result["kind"] != "sweep":
            metrics = evaluated.rows(result["name"])
            for place, n in enumerate(result["num_samples"]):
                numbers = [in_words(metrics.get((name, n))) for name in ("ged", "hm_iou", "diversity_samples")]
                expected.append([*([result["name"]] if place == 0 else []), str(n), *numbers])
    assert rows[:-1] == expected
    diversity = evaluated.rows("model")["diversity_labels", None]
    assert rows[-1] == ["annotators", NONE, NONE, NONE, in_words(diversity)]
    names = [row[0] for row in rows if len(row) == 5]
    assert names == ["model", "oracle", "majority vote", "always empty", "annotators"]
    assert rows[0][-1] == NONE  # the diversity of one sample


def test_variants_of_other_papers_have_a_row_each_or_one_per_number_of_samples(evaluated: Evaluated) -> None:
    rows = {row[0]: row[1:] for row in evaluated.page.tables["Metrics as other papers define them"]}
    metrics = evaluated.rows("model")
    counts = [n for name, n in metrics if name == "coverage"]
    assert len(counts) > 1
    for n in counts:
        assert rows[f"Coverage, n = {n}"][0] == in_words(metrics["coverage", n])
    assert rows["S_c"][0] == in_words(metrics["combined_sensitivity", None])


def test_table_of_other_metrics_holds_the_numbers_of_results_json(evaluated: Evaluated) -> None:
    rows = {row[0]: row[1:] for row in evaluated.page.tables["Metrics of all samples"]}
    assert rows["Metric"] == ["model", "oracle", "majority vote", "always empty"]
    names = {"max_dice": "Matched Dice", "ncc": "NCC", "brier": "Brier score", "ece": "ECE of probabilities"}
    for name, title in {**names, "iou_of_mean": "IoU of mean", "ece_samples": "ECE of samples"}.items():
        assert rows[title] == [in_words(evaluated.rows(result).get((name, None))) for result in rows["Metric"]]
    for title in ("Brier score", "ECE of probabilities", "IoU of mean", "NCC"):
        assert rows[title][2] == NONE  # of the majority vote


def test_tables_of_a_segmentation_hold_the_numbers_of_results_json(segmented: Evaluated) -> None:
    head, *rows = segmented.page.tables["Results by number of samples"]
    assert head == ["Predictor", "n", *SIZES]
    metrics = segmented.rows("model")
    numbers = [[str(n), *(in_words(metrics[name, n]) for name in ("miou", "miou_original"))] for n in (1, 2, 4)]
    assert rows == [["model", *numbers[0]], *numbers[1:]]

    head, *rows = segmented.page.tables["IoU by class"]
    assert head == ["Class", "Pixels", *(f"{size.removeprefix('Mean ')}, n = 4" for size in SIZES)]
    shown = [metrics[name, 4]["classes"] for name in ("miou", "miou_original")]
    assert [row[0] for row in rows] == list(shown[0]) == segmented.evaluation.classes.names[:3]
    for row in rows:
        assert row[2:] == [f"{100 * iou[row[0]]:.2f}" for iou in shown]
    pixels = np.array(segmented.contents["results"][0]["statistics"]["miou"])[:3].sum(1)
    assert [row[1] for row in rows] == [f"{100 * share:.2f}" for share in pixels / pixels.sum()]
    swatches = [attributes["style"] for attributes in segmented.page.all("span") if "style" in attributes]
    assert swatches[:3] == ["--colour: rgb(128, 64, 128)", "--colour: rgb(70, 70, 70)", "--colour: rgb(0, 0, 142)"]


def test_table_of_the_sweep_holds_the_numbers_of_results_json(either: Evaluated) -> None:
    is_distribution = either.contents["task"] == "distribution"
    head, *rows = either.page.tables["Results by sampler and steps"]
    names, compared = (["ged", "hm_iou"], True) if is_distribution else (["miou", "miou_original"], False)
    assert len(head) == 2 + len(names) * (2 if compared else 1) + 1
    sweep = [result for result in either.contents["results"] if result["kind"] == "sweep"]
    assert [rows[0][0], rows[2][0]] == ["ancestral", "ddim"]
    for row, result in zip(rows, sweep, strict=True):
        metrics = either.rows(result["name"])
        numbers = [in_words(metrics[name, 1]) for name in names] + [in_words(d) for d in result["differences"]]
        seconds = f"{metrics['seconds', None]['mean']:.3f}"
        assert row[-2 - len(numbers) :] == [str(result["sampling"]["steps"]), *numbers, seconds]
    assert ("from ancestral 5, image by image" in either.page.text) == is_distribution
    assert [d["mean"] for d in sweep[1]["differences"]] == ([0, 0] if is_distribution else [])


def test_confusion_matrix_of_results_json_gives_its_ious(segmented: Evaluated) -> None:
    statistics = segmented.contents["results"][0]["statistics"]
    for name, matrix in ((name, np.array(matrix)) for name, matrix in statistics.items()):
        hits = matrix.diagonal()[:3]
        iou = hits / (matrix.sum(0)[:3] + matrix.sum(1)[:3] - hits)
        assert list(segmented.rows("model")[name, 4]["classes"].values()) == pytest.approx(iou.tolist())
    matrix, names = np.array(statistics["miou"])[:3, :3], segmented.evaluation.classes.names
    for true in (0, 2):
        shares = matrix[true] / matrix[true].sum()
        worst = int(np.argmax(shares * (np.arange(3) != true)))
        assert f"{names[true]} is taken for {names[worst]} ({100 * shares[worst]:.0f} %)" in segmented.page.text
        (row,) = (row for row in segmented.page.tables["Confusion matrix"] if row[0] == names[true])
        assert row[1:] == [f"{100 * share:.0f}" if share >= 0.005 else "" for share in shares]


def test_terminal_shows_the_same_tables(either: Evaluated) -> None:
    printed = [line.split() for line in as_text(either.contents).splitlines()]
    for table, rows in either.page.tables.items():
        if table not in ("", "IoU by class", "Confusion matrix", "Metrics as other papers define them"):
            for row in rows:
                assert any(" ".join(row).split() == words[-len(" ".join(row).split()) :] for words in printed), row


def test_page_says_what_was_evaluated_and_how(either: Evaluated) -> None:
    text, number = either.page.text, 4 if either.contents["task"] == "distribution" else 5
    assert f"{number} images of the test split; coherent sampler, 3 of 50 steps, seed 0" in text
    if either.contents["task"] == "distribution":
        assert f"GED4 (lower is better)\n{in_words(either.rows('model')['ged', 4])}\noracle 0." in text
    else:
        assert "4 samples per image, fused by confidence." in text
        number_ = in_words(either.rows("model")["miou", 4]).replace(" [", " % [")
        assert f"{SIZES[0]}, n = 4 (higher is better)\n{number_}" in text
    words = ["0123abcd", "sampling.steps", "optim.learning_rate", "reports no results on my.data"]
    for part in (*words, *either.contents["protocol"].values()):
        assert part in text


def test_results_of_the_paper_are_shown_with_what_differs(evaluated: Evaluated, segmented: Evaluated) -> None:
    page = Page(evaluated.render(published=published_results("LIDCv1", (128, 128), False)))
    rows = page.tables["Results by number of samples"]
    place = next(place for place, row in enumerate(rows) if row[0] == "paper, LIDCv1")
    assert rows[place][1:] == ["16", "0.212", "0.623", NONE]
    assert rows[place + 2] == ["50", "0.187", NONE, NONE]
    assert "never published by patient" in page.text
    assert "samples take 3 steps, and 4 images of the test split are evaluated." in page.text
    (alt,) = (picture["alt"] for picture in page.all("img") if picture["alt"].startswith("HM-IoU over the number"))
    assert alt.endswith("; paper, LIDCv1 0.623 at 16, 0.631 at 32")

    paper = {"name": "paper, Streets", "kind": "paper", "num_samples": [1, 4], "note": "On 500 images."}
    metrics = [{"metric": "miou", "num_samples": n, "mean": mean} for n, mean in ((1, 0.532), (4, 0.56))]
    page = Page(segmented.render(published={**paper, "metrics": metrics}))
    rows = page.tables["Results by number of samples"]
    assert rows[-2:] == [["paper, Streets", "1", "53.2", NONE], ["4", "56.0", NONE]]
    assert page.text.count("paper, Streets 56.0") == 1  # only at the size of the network's images


def test_standard_deviation_over_the_seeds_is_shown(evaluated_with: Evaluate, segmented_with: Evaluate) -> None:
    for run, name, digits, scale in ((evaluated_with, "ged", 4, 1), (segmented_with, "miou_original", 2, 100)):
        found = run(seeds=[0, 1], n_validation_images=0)
        deviation = found.rows("model")[name, 4]["std_over_seeds"]
        assert deviation > 0
        assert f" {scale * deviation:.{digits}f}" in found.page.text.partition("Standard deviations")[2][:200]
        assert "images" not in section_ids(found.page)


# The page.


def test_page_needs_nothing_from_elsewhere(either: Evaluated) -> None:
    check_needs_nothing_from_elsewhere(either.html.replace("http://example.org", ""))  # of the hostile names


def test_page_is_well_formed_with_headings_in_order(either: Evaluated) -> None:
    page, common = either.page, ["images", "process", "protocol"]
    assert page.all("html") == [{"lang": "en"}]
    assert len(page.all("h1")) == len(page.all("main")) == 1
    assert section_ids(page) == [attributes["id"] for attributes in page.all("h2") if "id" in attributes]
    middle = {"distribution": ["calibration"], "segmentation": ["classes"]}[either.contents["task"]]
    assert section_ids(page) == ["results", "samples", "steps", *middle, *common]


def test_all_names_are_escaped(either: Evaluated) -> None:
    examples = [{**example, "name": HOSTILE} for example in either.contents["examples"]]
    training = {HOSTILE: {HOSTILE: HOSTILE}}
    text = either.render(dataset_file=HOSTILE, training_settings=training, examples=examples)
    page = Page(text)
    assert page.all("script") == []
    assert all("onerror" not in attributes for attributes in page.all("img"))
    assert len(page.all("img")) == len(either.page.all("img"))
    assert page.text.count(HOSTILE) >= 8
    assert any(attributes["alt"] == f"image of {HOSTILE}" for attributes in page.all("img"))
    assert "<script" not in text


def test_page_can_be_rendered_again_from_the_folder(either: Evaluated, tmp_path: Path) -> None:
    assert either.html == either.render()
    (either.folder / "results.json").write_text(json.dumps(either.contents), encoding="utf-8")
    write_report(either.folder)
    assert (either.folder / "report.html").read_text(encoding="utf-8") == either.html
    with pytest.raises(UserError, match=r"no .*results\.json; expected the folder of an evaluation"):
        write_report(tmp_path)


@pytest.mark.parametrize("old, new", [('"results"', '"more"'), ('"file": "', '"file": "../../x/'), ("}", "")])
def test_damaged_results_are_refused(evaluated: Evaluated, tmp_path: Path, old: str, new: str) -> None:
    (tmp_path / "results.json").write_text(json.dumps(evaluated.contents).replace(old, new), encoding="utf-8")
    assert str(tmp_path) in refusal(main, [str(tmp_path)])


def test_pictures_have_descriptions_and_their_true_size(evaluated: Evaluated) -> None:
    pictures = evaluated.page.all("img")
    assert len({attributes["alt"] for attributes in pictures}) > 10
    for attributes in pictures:
        assert len(attributes["alt"]) > 10
        if attributes["src"].startswith("data:image/png"):
            height, width, channels = decoded(attributes).shape
            assert (str(width), str(height), channels) == (attributes["width"], attributes["height"], 3)
        else:
            assert base64.b64decode(attributes["src"].partition(";base64,")[2]).startswith(b"<svg")
    curves = [attributes["alt"] for attributes in pictures if "svg" in attributes["src"]]
    assert [words.partition(":")[0] for words in curves] == [
        "GED over the number of samples", "HM-IoU over the number of samples", "GED over steps", "HM-IoU over steps",
        "Seconds per image over steps", "Reliability diagram",
    ]  # fmt: skip
    assert f"{evaluated.results[0].mean('ged', 2):.3f} at 2" in curves[0]
    sweep = {result.name: result.mean("seconds") for result in evaluated.results if result.kind == "sweep"}
    seconds = [
        f"{sampler} " + ", ".join(f"{sweep[f'{sampler} {n}']:.3f} at {n}" for n in (2, 5))
        for sampler in ("ancestral", "ddim")
    ]
    assert curves[4] == f"Seconds per image over steps: {'; '.join(seconds)}"


def test_pictures_can_be_enlarged_without_scripts(either: Evaluated) -> None:
    ids = {attributes["id"] for _, attributes in either.page.elements if "id" in attributes}
    links = {name: [a["href"] for a in either.page.all("a") if a.get("class") == name] for name in ("zoom", "close")}
    pictures = [a for a in either.page.all("img") if a["src"].startswith("data:image/png")]
    assert len(links["zoom"]) == len(set(links["zoom"])) == len(links["close"]) == len(pictures) > 10
    assert {link[1:] for links_ in links.values() for link in links_} <= ids
    assert ".cells li:target" in either.html


# Special cases.


def test_single_image_has_no_interval_and_no_nan(evaluated_with: Evaluate, segmented_with: Evaluate) -> None:
    for run in (evaluated_with, segmented_with):
        single = run(dataset_val_max_size=1, num_samples=[2], n_validation_images=0)
        page = single.page
        assert "nan" not in as_text(single.contents) + results_csv(single.contents)
        assert re.search(r"\bnan\b", page.text, re.IGNORECASE) is None
        assert "[" not in page.tables["Results by number of samples"][1][2]
        assert section_ids(page) in (["results", "calibration", "protocol"], ["results", "classes", "protocol"])


def test_class_that_does_not_occur_has_a_dash(segmented: Evaluated) -> None:
    name, model = segmented.evaluation.classes.names[1], segmented.contents["results"][0]
    metrics = [
        row | {"classes": {**row["classes"], name: None}} if "classes" in row else row for row in model["metrics"]
    ]
    page = Page(segmented.render(results=[{**model, "metrics": metrics}]))
    assert page.tables["IoU by class"][2] == [name, "0.00", NONE, NONE]


def test_classifier_is_shown_by_its_samples_and_its_arg_max(evaluated_with: Evaluate, segmented_with: Evaluate) -> None:
    settings = {"sampling": SamplingConfig(), "sweep": {"steps": []}}
    page = evaluated_with(CCDM(tiny.model().network, PixelwiseClassifier(2)), **settings).page
    rows = page.tables["Results by number of samples"]
    names = [row[0] for row in rows if len(row) == 5]
    assert names == ["Predictor", "model", "arg max per pixel", "oracle", "majority vote", "always empty", "annotators"]
    assert rows[3][1] in page.text.partition("Results")[0]  # the headline is that of the samples
    assert "process" not in section_ids(page)
    page = segmented_with(CCDM(tiny.model(4, 3).network, PixelwiseClassifier(4)), **settings).page
    assert [row[:2] for row in page.tables["Results by number of samples"][1:]] == [["model", "1"]]
