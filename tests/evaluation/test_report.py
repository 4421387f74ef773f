"""The report: its numbers are those of results.json, it needs nothing but itself, and a browser shows it."""

import base64
import functools
import html
import io
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from datasets import AnnotatedDataset, load_dataset
from datasets.loading import evaluation_batches
from evaluation import Entry, evaluate
from evaluation.figures import headline
from evaluation.gallery import Exhibit, film_strip, gallery, ranked
from evaluation.report import render_report
from evaluation.results import as_json
from evaluation.scores import Scores
from models import CCDM, ProcessShape
from tests import tiny
from utils.schema import EvalSettings, Sampling

NONE = "\N{EN DASH}"
VOID = {"meta", "img", "br", "link", "input", "hr"}
HOSTILE = '<script>alert("x")</script>&<img src=http://example.org/x onerror=alert(1)>'


class Page(HTMLParser):
    """Every element's attributes, the tables cell by cell, and the text; refuses elements that are not closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.tables: dict[str, list[list[str]]] = {}
        self.text = ""
        self._open: list[str] = []
        self._rows: list[list[str]] = []
        self._caption = ""
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attributes}))
        if tag not in VOID:
            self._open.append(tag)
        if tag == "table":
            self._rows, self._caption = [], ""
        elif tag == "tr":
            self._rows.append([])
        elif tag in ("td", "th"):
            self._rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag
        if tag == "table":
            self.tables[self._caption] = self._rows

    def handle_data(self, data: str) -> None:
        if "style" in self._open:
            return
        self.text += data
        if "caption" in self._open:
            self._caption += data
        elif {"td", "th"} & set(self._open):
            self._rows[-1][-1] += data

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.elements if name == tag]


class Evaluated:
    """An evaluation of a tiny model, and its report."""

    def __init__(self, model: CCDM, data: AnnotatedDataset, settings: EvalSettings, folder: Path) -> None:
        self.model, self.data, self.settings = model, data, settings
        self.entries: list[Entry] = evaluate(model, data, settings, folder, "digest")
        about = {
            "settings": settings.model_dump(),
            "dataset_file": "datasets.synthetic",
            "checkpoint": {"path": "logs/run/best_ged.pt", "step": 7, "digest_of_weights": "0123abcd"},
            "training_settings": {"optim": {"name": "Adam"}, "class_weights": None},
            "bits_per_pixel": None,
        }
        self.contents: dict[str, Any] = json.loads(as_json(self.entries, about))
        self.exhibits: list[Exhibit] = gallery(model, data, settings, headline(self.entries).scores)

    def render(self, **changes: Any) -> str:
        steps = self.model.process.time_steps
        return render_report({**self.contents, **changes}, self.entries, self.exhibits, steps)

    @functools.cached_property
    def html(self) -> str:
        return self.render()

    @functools.cached_property
    def page(self) -> Page:
        return Page(self.html)


Evaluate = Callable[..., Evaluated]


@pytest.fixture(scope="session")
def evaluated_with(data_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Evaluate:
    def run(model: CCDM | None = None, **changes: Any) -> Evaluated:
        data = load_dataset("datasets.synthetic", "test", {"path": str(data_folder), "side": tiny.SIDE})
        settings = {"evaluations": [1, 2, 4], "sampling": Sampling(steps=3), "n_validation_images": 3, **changes}
        return Evaluated(model or tiny.model(), data, EvalSettings(**settings), tmp_path_factory.mktemp("rows"))

    return run


@pytest.fixture(scope="session")
def evaluated(evaluated_with: Evaluate) -> Evaluated:
    return evaluated_with(sampling_steps=[2, 5], samplers=["ancestral", "ddim"])


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
    for words in ("0123abcd", "sampling.steps", "optim.name", "torchmetrics", "The paper reports no such numbers"):
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
    text = evaluated.html
    page = Page(text)
    for tag in ("script", "link", "iframe", "object", "embed", "form", "base"):
        assert page.all(tag) == []
    for _, attributes in page.elements:
        for name in ("src", "href", "srcset", "action", "style"):
            assert attributes.get(name, "data:").startswith(("data:image/", "data:", "#", "--columns: "))
    assert "http" not in re.sub(r"http-equiv", "", text)
    assert "url(" not in text
    assert "@import" not in text
    assert len(text) < 2e6


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


def decoded(attributes: dict[str, str]) -> np.ndarray:
    kind, data = attributes["src"].split(";base64,")
    assert kind == "data:image/png"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))


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
    [(3, [50, 33, 17]), (1, [50]), (None, [50, 44, 38, 31, 25, 19, 12, 6])],
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
        model = CCDM(tiny.network_shape(), ProcessShape(1, "single_jump")).eval()
    page = evaluated_with(model).page
    rows = page.tables["Results by number of samples"]
    assert [row[0] for row in rows if len(row) == 5][1:3] == ["arg max per pixel", "draws per pixel"]
    assert rows[4][2] in page.text.partition("Results")[0]
    assert page.all("section")[-1] == {"aria-labelledby": "protocol"}
    assert "The reverse process" not in page.text


CHROMIUM = shutil.which("chromium")
in_browser = pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium on the PATH to open the report in")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-sync",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
]
# Loads the page into a frame of each width, and writes down what it finds there.
HARNESS = """<!DOCTYPE html><title>harness</title><body><pre id="found">[]</pre><script>
const page = {page}, widths = {widths}, found = [];
for (const width of widths) {{
  const frame = document.createElement("iframe");
  frame.style = `border: 0; width: ${{width}}px; height: 800px`;
  frame.onload = async () => {{
    const inside = frame.contentDocument, images = [...inside.images];
    const decoded = await Promise.allSettled(images.map((image) => image.decode()));
    const outside = [...inside.querySelectorAll("body *")].filter(
      (element) => !element.closest(".scroll") && element.getBoundingClientRect().right > width + 1);
    found.push({{
      width, scrollWidth: inside.documentElement.scrollWidth, images: images.length,
      decoded: decoded.filter((one) => one.status === "fulfilled").length,
      outside: outside.map((element) => element.outerHTML.slice(0, 80)),
      smallest: Math.min(...images.map((image) => image.getBoundingClientRect().width)),
      sans: inside.defaultView.getComputedStyle(inside.body).fontFamily.includes("system-ui"),
    }});
    document.getElementById("found").textContent = JSON.stringify(found);
  }};
  frame.srcdoc = page;
  document.body.append(frame);
}}
</script></body>"""


def opened(path: Path, profile: Path, *flags: str) -> tuple[str, str]:
    """What headless Chromium makes of a file: the document, and its log without what is not about the page."""
    command = [
        str(CHROMIUM), *FLAGS, f"--user-data-dir={profile}", "--enable-logging=stderr", "--v=0",
        *flags, path.as_uri(),
    ]  # fmt: skip
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    about_page = [line for line in ended.stderr.splitlines() if "CONSOLE" in line or "net_error" in line.lower()]
    return ended.stdout, "\n".join(about_page)


@in_browser
def test_browser_shows_the_report_without_errors(evaluated: Evaluated, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text(evaluated.html, encoding="utf-8")
    document, log = opened(path, tmp_path / "profile", "--dump-dom")
    assert log == ""
    assert Page(document).tables == evaluated.page.tables


@in_browser
def test_browser_log_tells_of_what_would_be_wrong(tmp_path: Path) -> None:
    path = tmp_path / "wrong.html"
    path.write_text("<!DOCTYPE html><script>console.error('wrong')</script>", encoding="utf-8")
    assert "wrong" in opened(path, tmp_path / "profile", "--dump-dom")[1]


@in_browser
def test_page_fits_phone_and_desk_and_all_pictures_decode(evaluated: Evaluated, tmp_path: Path) -> None:
    long = "a_very_long_name_without_any_place_to_break_" * 4
    contents = {**evaluated.contents, "dataset_file": long, "training_settings": {long: long}}
    text = render_report(contents, evaluated.entries, evaluated.exhibits, 50).replace("<details>", "<details open>")
    harness, widths = tmp_path / "harness.html", [320, 390, 1280]
    page = json.dumps(text).replace("</", "<\\/")
    harness.write_text(HARNESS.format(page=page, widths=widths), encoding="utf-8")
    document, log = opened(harness, tmp_path / "profile", "--dump-dom", "--virtual-time-budget=20000")
    assert log == ""
    match = re.search(r'<pre id="found">(.*?)</pre>', document, re.DOTALL)
    assert match is not None
    found = {frame["width"]: frame for frame in json.loads(html.unescape(match[1]))}
    assert sorted(found) == widths
    for width, frame in found.items():
        assert frame["outside"] == []
        assert frame["scrollWidth"] <= width
        assert frame["decoded"] == frame["images"] == len(Page(text).all("img"))
        assert frame["smallest"] >= 40
        assert frame["sans"]


@in_browser
def test_report_prints_with_its_settings_unfolded(evaluated: Evaluated, tmp_path: Path) -> None:
    path, printed = tmp_path / "report.html", tmp_path / "report.pdf"
    path.write_text(evaluated.html, encoding="utf-8")
    _, log = opened(path, tmp_path / "profile", f"--print-to-pdf={printed}", "--no-pdf-header-footer")
    assert log == ""
    contents = printed.read_bytes()
    assert contents.startswith(b"%PDF")
    assert 3 <= contents.count(b"/Type /Page\n") <= 12
