"""The page on the method: its figures can be drawn, and its table says what was measured."""

import importlib.util
from types import ModuleType

import numpy as np
import pytest

from metrics import Interval, paired_bootstrap_interval
from tests import tiny

DOCS = tiny.ROOT / "docs"


@pytest.fixture(scope="module")
def figures() -> ModuleType:
    spec = importlib.util.spec_from_file_location("figures", DOCS / "figures.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def in_words(interval: Interval) -> str:
    return f"{interval.mean:+.3f} [{interval.low:+.3f}, {interval.high:+.3f}]"


@pytest.mark.parametrize(("file", "page"), [("steps.csv", "method.md"), ("lidc_steps.csv", "results.md")])
def test_table_over_steps_holds_what_was_measured(figures: ModuleType, file: str, page: str) -> None:
    measured, text = figures._measured(file), (DOCS / page).read_text()
    most = measured["ancestral", 100]
    assert {sampler for sampler, _ in measured} == {"ancestral", "coherent"}
    for (sampler, steps), values in measured.items():
        cells = [f"`{sampler}`", str(steps)]
        for measure in ("ged_16", "hm_iou_16"):
            interval = paired_bootstrap_interval(values[measure], most[measure], most["group"])
            cells += [f"{np.mean(values[measure]):.3f}", "" if values is most else in_words(interval)]
        assert f"| {' | '.join(cells)} |" in text


@pytest.mark.parametrize("name", ["schedule", "quality_over_steps", "lidc_training", "lidc_over_steps"])
def test_figures_can_be_drawn(figures: ModuleType, name: str) -> None:
    figure = figures.FIGURES[name]()
    assert len(figure.axes) == 2
    assert all(axes.lines for axes in figure.axes)
    assert (DOCS / "figures" / f"{name}.png").is_file()
