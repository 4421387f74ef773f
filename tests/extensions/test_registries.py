"""A schedule, a sampler and a metric each need one function and one line in a registry."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import ddpm_eval
from checkpoints.model import build_model
from diffusion import SAMPLERS, SCHEDULES, Process, SamplingConfig
from evaluation.image_metrics import METRICS, Comparison, Metric
from tests import tiny
from tests.trainings import Train
from utils.errors import UserError


def sqrt_schedule(time_steps: int, offset: float = 1e-4) -> Tensor:
    """The schedule of Diffusion-LM."""
    return 1 - ((torch.arange(time_steps + 1, dtype=torch.float64) / time_steps + offset) / (1 + offset)).sqrt()


def direct(
    process: Process, p: Tensor, x_t: Tensor, t: Tensor, s: Tensor, keys: Tensor, sampling: SamplingConfig
) -> Tensor:
    """Draws the label map itself at every step."""
    return p


def area_difference(c: Comparison) -> Tensor:
    """Difference of the mean areas of samples and annotators in pixels."""
    return (c.samples > 0).double().sum((2, 3)).mean(1) - (c.labels > 0).double().sum((2, 3)).mean(1)


def evaluate(run: Path, folder: Path, *changes: str) -> list[dict[str, Any]]:
    """The results of the model and its sweep."""
    ddpm_eval.main(tiny.eval_argv(run / "last.pt", folder, *changes))
    return json.loads((folder / "results.json").read_text())["results"]


def test_schedule(train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    params = "process_params={time_steps: 20, beta_schedule: sqrt, beta_schedule_params: {offset: 0.001}}"
    with pytest.raises(UserError, match="unknown name 'sqrt'; choose from: cosine, linear"):
        train("refused", params)
    monkeypatch.setitem(SCHEDULES, "sqrt", sqrt_schedule)
    table = build_model(train("run", params, "train_for=1 epoch")).process.alpha_bar
    assert torch.equal(table[1:], sqrt_schedule(20, 0.001)[1:])


def test_sampler(finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sweep = "sweep={steps: [1, 2], samplers: [ancestral, direct]}"
    with pytest.raises(UserError, match="unknown name 'direct'; choose from: ancestral, coherent, ddim"):
        evaluate(finished_run, tmp_path / "results", sweep)
    monkeypatch.setitem(SAMPLERS, "direct", direct)
    results = evaluate(finished_run, tmp_path / "results", sweep, "sampling.sampler=direct")
    assert results[0]["sampling"]["sampler"] == "direct"
    assert [result["sampling"]["sampler"] for result in results if result["kind"] == "sweep"].count("direct") == 2


def test_metric(finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def metrics(result: dict[str, Any], *left_out: str) -> list[dict[str, Any]]:
        return [row for row in result["metrics"] if row["metric"] not in ("seconds", *left_out)]

    before = evaluate(finished_run, tmp_path / "results")[0]
    monkeypatch.setitem(METRICS, "area_difference", Metric("area_difference", "Area difference", area_difference))
    after = evaluate(finished_run, tmp_path / "results")[0]
    assert metrics(after, "area_difference") == metrics(before)
    assert abs(next(row["mean"] for row in after["metrics"] if row["metric"] == "area_difference")) < tiny.SIDE**2
    assert "Area difference" in (tmp_path / "results" / "report.html").read_text()
