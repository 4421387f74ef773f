"""Reports of tiny evaluations, and what they are looked at with."""

import base64
import functools
import io
import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from evaluation import EvalSettings, Evaluation, Result
from evaluation.examples import write_examples
from evaluation.report import render_report
from evaluation.results import results_contents
from models import CCDM

NONE = "\N{EN DASH}"
VOID = {"meta", "img", "br", "link", "input", "hr"}


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


def section_ids(page: Page) -> list[str]:
    return [attributes["aria-labelledby"] for attributes in page.all("section")]


def decoded(attributes: dict[str, str]) -> np.ndarray:
    """The pixels of a picture of the page."""
    kind, data = attributes["src"].split(";base64,")
    assert kind == "data:image/png"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))


def check_needs_nothing_from_elsewhere(text: str) -> None:
    """No element, attribute or style of the page names another file."""
    page = Page(text)
    for tag in ("script", "link", "iframe", "object", "embed", "form", "base"):
        assert page.all(tag) == []
    own = ("data:", "#", "--columns: ", "--colour: ", "--share: ")
    for _, attributes in page.elements:
        for name in ("src", "href", "srcset", "action", "style"):
            assert attributes.get(name, "data:").startswith(own)
    assert "http" not in re.sub(r"http-equiv", "", text)
    assert "url(" not in text
    assert "@import" not in text
    assert len(text) < 2e6


class Evaluated:
    """An evaluation of a tiny model, with its results and report in a folder."""

    def __init__(self, model: CCDM, data: Any, folder: Path, **settings: Any) -> None:
        self.model, self.data, self.folder = model, data, folder
        self.settings = EvalSettings(dataset_file="my.data", dataset_params={}, **settings)
        self.evaluation = Evaluation(model, data, self.settings, "digest")
        self.results: list[Result] = self.evaluation.run(folder)
        about = {
            "settings": self.settings.model_dump(),
            "dataset_file": "my.data",
            "dataset": "my.data",
            "time_steps": model.process.time_steps,
            "checkpoint": {"path": "logs/run/best_ged.pt", "step": 7, "digest_of_weights": "0123abcd"},
            "training_settings": {"optim": {"learning_rate": 0.1}, "class_weights": None},
        }
        contents = results_contents(self.results, self.evaluation.classes, None, about)
        contents["examples"] = write_examples(self.evaluation, self.results[0], folder)
        self.contents: dict[str, Any] = json.loads(json.dumps(contents, allow_nan=False))

    def render(self, **changes: Any) -> str:
        """The report, with other contents where `changes` say so."""
        return render_report({**self.contents, **changes}, self.folder)

    @functools.cached_property
    def html(self) -> str:
        return self.render()

    @functools.cached_property
    def page(self) -> Page:
        return Page(self.html)

    def rows(self, name: str) -> dict[tuple[str, int | None], dict[str, Any]]:
        """The metrics of a result by metric and number of samples."""
        (result,) = (result for result in self.contents["results"] if result["name"] == name)
        return {(row["metric"], row["num_samples"]): row for row in result["metrics"]}


Evaluate = Callable[..., Evaluated]
