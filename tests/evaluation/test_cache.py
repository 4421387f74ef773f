"""Cached scores are reused if nothing has changed that they depend on."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from datasets import load_dataset
from datasets.digest import data_digest
from datasets.loading import EvaluationBatch, evenly_spaced_indices
from datasets.synthetic import SyntheticLesions
from diffusion import SamplingConfig
from evaluation import Prediction, Result, oracle
from evaluation.cache import ResultCache, _with_digest
from evaluation.image_metrics import METRICS, Metric
from evaluation.settings import SweepConfig
from models import CCDM
from tests.datasets.test_folder import write_folder
from tests.datasets.trees import write_png
from tests.evaluation.data import evaluation, score_all, without_seconds


def test_interrupted_evaluation_continues_with_the_same_scores(val: SyntheticLesions, tmp_path: Path) -> None:
    predictor, seen = oracle(val, 4), 0

    def breaks_down(batch: EvaluationBatch) -> Prediction:
        nonlocal seen
        seen += 1
        if seen == 3:
            raise KeyboardInterrupt
        return predictor(batch)

    options: dict[str, Any] = {"num_samples": (4,), "batch_size": 8}
    with pytest.raises(KeyboardInterrupt):
        score_all(breaks_down, val, cache=ResultCache(tmp_path / "cache", "a"), **options)
    with open(tmp_path / "cache", "a", encoding="utf-8") as file:
        file.write('[{"index": 16, "na')  # the process was killed while it wrote
    continued = score_all(breaks_down, val, cache=ResultCache(tmp_path / "cache", "a"), **options)
    assert seen == 3 + 3  # two of the five batches were not predicted again
    assert without_seconds(continued) == without_seconds(score_all(predictor, val, **options))
    assert len(ResultCache(tmp_path / "cache", "a").scores) == 40
    assert len(ResultCache(tmp_path / "cache", "b").scores) == 0


@pytest.mark.parametrize(
    "damage",
    [
        lambda line: line.replace("0.", "2.", 1),
        lambda line: line.replace('"index": 8', '"index": 9'),
        lambda line: line[:-9],
        lambda line: "[" * 10**5,
        lambda line: "\udcff\0",
        lambda line: _with_digest('[{"index": [0]}]'),
        lambda line: _with_digest("{"),
    ],
)
def test_damaged_scores_are_computed_again(
    val: SyntheticLesions, tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: Callable[[str], str]
) -> None:
    path, options = tmp_path / "cache", {"num_samples": (4,), "batch_size": 8}
    whole = score_all(oracle(val, 4), val, cache=ResultCache(path, "a"), **options)
    lines = path.read_text(encoding="utf-8").splitlines()
    lines[2] = damage(lines[2])
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8", errors="surrogateescape")
    cache = ResultCache(path, "a")
    assert len(cache.scores) == 32
    assert f"{path}: 1 batches are damaged; their images are scored again" in caplog.text
    assert without_seconds(score_all(oracle(val, 4), val, cache=cache, **options)) == without_seconds(whole)


def test_new_and_corrected_metrics_are_computed_although_an_evaluation_is_cached(
    val: SyntheticLesions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"dataset_val_max_size": 2, "num_samples": 1, "sampling": SamplingConfig(steps=1)}
    before = evaluation(val, **settings).run(tmp_path)
    monkeypatch.setitem(METRICS, "brier", METRICS["brier"]._replace(version=2, compute=lambda c: torch.full((2,), 7.0)))
    monkeypatch.setitem(METRICS, "size", Metric("size", "Size", lambda c: c.labels.double().mean((1, 2, 3))))
    after = evaluation(val, **settings).run(tmp_path)
    assert [result.mean("brier") for result in after if result.name != "majority vote"][:2] == [7, 7]
    assert after[0].mean("size") > 0
    assert after[0].mean("ged", 1) == before[0].mean("ged", 1)


class Changed:
    """A dataset with other labels in one image."""

    num_classes, image_channels = 2, 1

    def __init__(self, data: Any, index: int) -> None:
        self.data, self.index = data, index

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> dict[str, Any]:
        item = self.data[index]
        return {**item, "labels": 1 - item["labels"]} if index == self.index else item


def test_changed_data_is_evaluated_again(val: SyntheticLesions, tmp_path: Path) -> None:
    settings = {"dataset_val_max_size": 2, "num_samples": 1, "sampling": SamplingConfig(steps=1)}
    before = evaluation(val, **settings)
    changed: Any = Changed(val, before.indices[1])
    digests = {data_digest(val, before.indices), data_digest(changed, before.indices), data_digest(val, [0])}
    assert len(digests) == 3
    old, new = before.run(tmp_path)[0], evaluation(changed, **settings).run(tmp_path)[0]
    assert old.values("ged", 1)[0] == new.values("ged", 1)[0]
    assert old.values("ged", 1)[1] != new.values("ged", 1)[1]


@pytest.mark.parametrize("change", ["labels", "patients"])
def test_folder_of_which_any_file_has_changed_is_evaluated_again(tmp_path: Path, change: str) -> None:
    root = write_folder(tmp_path / "mine", number=12)
    settings = {"num_samples": 1, "sampling": SamplingConfig(steps=1), "dataset_file": "datasets.folder"}

    def run() -> Result:
        data = load_dataset("datasets.folder", "test", {"path": str(root), "class_ids": [0, 1, 2]})
        return evaluation(data, **settings).run(tmp_path / "evaluation")[0]

    before, same = run(), run()
    assert before.per_seed == same.per_seed  # with the times of the first run
    assert 1 not in evenly_spaced_indices(12, 8)  # the images whose values are compared
    if change == "labels":
        write_png(root / "test" / "labels" / "1" / "0.png", np.full((8, 6), 2))
        assert (run().values("ged", 1) != before.values("ged", 1)).tolist() == [
            image.name == "1" for image in before.images
        ]
    else:
        for part in ("images", "labels"):
            (root / "test" / part / "p").mkdir()
        (root / "test" / "images" / "1.png").rename(root / "test" / "images" / "p" / "1.png")
        (root / "test" / "labels" / "1").rename(root / "test" / "labels" / "p" / "1")
        assert [image.name for image in run().images if "/" in image.name] == ["p/1"]


def test_sweep_does_not_draw_the_model_s_own_samples_again(
    val: SyntheticLesions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[int | None] = []
    sample = CCDM.sample

    def counted(self: CCDM, images: Any, n: int, sampling: SamplingConfig, *others: Any, **named: Any) -> Any:
        steps.append(sampling.steps)
        return sample(self, images, n, sampling, *others, **named)

    monkeypatch.setattr(CCDM, "sample", counted)
    sampling, sweep = SamplingConfig(steps=2), SweepConfig(steps=[1, 2])
    results = evaluation(val, dataset_val_max_size=2, num_samples=3, sampling=sampling, sweep=sweep).run(tmp_path)
    assert steps == [2, 1]
    scored = {result.name: result for result in results}
    assert (scored["coherent 2"].kind, scored["model"].kind) == ("sweep", "model")
    assert scored["coherent 2"].per_seed == scored["model"].per_seed


@pytest.mark.parametrize(
    ("changes", "predicted"),
    [
        ({"n_validation_images": 0, "mp_loaders": 1, "load_from": "elsewhere.pt"}, 0),
        ({"precision": "bfloat16"}, 1),
        ({"batch_size": 3}, 1),
        ({"dataset_split": "val"}, 1),
    ],
)
def test_scores_are_reused_if_they_were_made_the_same_way(
    val: SyntheticLesions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], predicted: int
) -> None:
    settings = {"dataset_val_max_size": 2, "num_samples": 1, "sampling": SamplingConfig(steps=1)}
    evaluation(val, **settings).run(tmp_path)
    sampled: list[int] = []
    sample = CCDM.sample
    monkeypatch.setattr(
        CCDM, "sample", lambda self, *args, **kwargs: sampled.append(1) or sample(self, *args, **kwargs)
    )
    evaluation(val, **{**settings, **changes}).run(tmp_path)
    assert len(sampled) == predicted
