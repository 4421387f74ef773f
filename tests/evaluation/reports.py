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

from datasets import AnnotatedDataset
from evaluation import Entry, evaluate
from evaluation.classes import Classes, SemanticDataset
from evaluation.figures import headline
from evaluation.gallery import Exhibit, gallery
from evaluation.report import render_report, render_segmentation_report
from evaluation.results import as_json
from evaluation.segmentation import evaluate_segmentation
from evaluation.segmentation_gallery import segmentation_gallery
from evaluation.segmentation_results import segmentation_json
from models import CCDM
from utils.schema import EvalSettings

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


def about(settings: EvalSettings, dataset_file: str) -> dict[str, Any]:
    """What an evaluation tells of itself."""
    return {
        "settings": settings.model_dump(),
        "dataset_file": dataset_file,
        "checkpoint": {"path": "logs/run/best_ged.pt", "step": 7, "digest_of_weights": "0123abcd"},
        "training_settings": {"optim": {"name": "Adam"}, "class_weights": None},
    }


class Rendered:
    """Something that makes a page."""

    def render(self, **changes: Any) -> str:
        """The page, with other contents where `changes` say so."""
        raise NotImplementedError

    @functools.cached_property
    def html(self) -> str:
        return self.render()

    @functools.cached_property
    def page(self) -> Page:
        return Page(self.html)


class Evaluated(Rendered):
    """An evaluation of a tiny model, and its report."""

    def __init__(self, model: CCDM, data: AnnotatedDataset, settings: EvalSettings, folder: Path) -> None:
        self.model, self.data, self.settings = model, data, settings
        self.entries: list[Entry] = evaluate(model, data, settings, folder, "digest")
        told = {**about(settings, "datasets.synthetic"), "bits_per_pixel": None}
        self.contents: dict[str, Any] = json.loads(as_json(self.entries, told))
        self.exhibits: list[Exhibit] = gallery(model, data, settings, headline(self.entries).scores)

    def render(self, **changes: Any) -> str:
        steps = self.model.process.time_steps
        return render_report({**self.contents, **changes}, self.entries, self.exhibits, steps)


class Segmented(Rendered):
    """An evaluation of a tiny model by mean IoU, and its report."""

    def __init__(self, model: CCDM, data: SemanticDataset, settings: EvalSettings, folder: Path) -> None:
        self.model, self.data, self.settings, self.classes = model, data, settings, Classes.of(data)
        self.entries = evaluate_segmentation(model, data, settings, folder, "digest")
        paper: dict[int, float] = {}
        self.contents: dict[str, Any] = json.loads(
            segmentation_json(self.entries, self.classes, paper, about(settings, "my.streets"))
        )
        self.exhibits = segmentation_gallery(model, data, settings, self.entries[0])

    def render(self, **changes: Any) -> str:
        steps = self.model.process.time_steps
        return render_segmentation_report({**self.contents, **changes}, self.classes, self.exhibits, steps)


Evaluate = Callable[..., Evaluated]
Segment = Callable[..., Segmented]
