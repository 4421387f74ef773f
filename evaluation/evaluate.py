"""What an evaluation consists of: which predictors are scored, at which numbers of samples, with which steps."""

import dataclasses
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from datasets import AnnotatedDataset, KnownDistribution
from datasets.loading import EvaluationBatch, evenly_spaced_indices
from evaluation.cache import Row, RowStore
from evaluation.image_metrics import BINS
from evaluation.predictors import (
    CLASSIFIER_ARGMAX,
    CLASSIFIER_DRAWS,
    Predictor,
    always_empty,
    majority_vote,
    model_samples,
    oracle,
)
from evaluation.scores import Scores, score
from evaluation.sharing import fill
from metrics import Interval, bootstrap_interval
from models import CCDM
from utils.schema import EvalSettings, Sampling

Kind = Literal["model", "reference", "sweep"]


@dataclasses.dataclass(frozen=True)
class Entry:
    """One line of the results: the model, an oracle or baseline, or the model with other steps.

    Attributes:
        name: what the line is called.
        kind: "model" for the headline, "reference" for oracle and baselines, "sweep" for other steps and samplers.
        scores: per image, averaged over the seeds.
        spread: standard deviation over the seeds of the mean of each of `columns`; 0 for one seed.
        sampling: how samples were drawn, for the model's lines.
    """

    name: str
    kind: Kind
    scores: Scores
    sampling: Sampling | None = None
    spread: dict[str, float] = dataclasses.field(default_factory=dict)


def evaluate(
    model: CCDM, data: AnnotatedDataset, settings: EvalSettings, rows_folder: Path, digest: str
) -> list[Entry]:
    """Score everything that the settings ask for, continuing from the rows that an earlier run left in `rows_folder`.

    `digest` identifies the weights; rows made with other weights, data or settings are not used.
    """
    indices = evenly_spaced_indices(len(data), settings.dataset_val_max_size)
    counts = sorted(set(settings.evaluations))

    def run(name: str, predictor: Predictor, counts: list[int], made_with: Any) -> Scores:
        fingerprint = fingerprint_of(digest, settings, data, counts, made_with)
        store = RowStore(rows_folder / f"{name.replace(' ', '_')}.jsonl", fingerprint)
        return score(
            predictor, data, indices, counts,
            batch_size=settings.batch_size, workers=settings.mp_loaders, store=store, title=name,
        )  # fmt: skip

    if model.is_classifier:
        entries = [
            _model_entry(run, model, settings, CLASSIFIER_ARGMAX, "arg max per pixel", "model", [1]),
            _model_entry(run, model, settings, CLASSIFIER_DRAWS, "draws per pixel", "model", counts),
        ]
    else:
        entries = [_model_entry(run, model, settings, settings.sampling, "model", "model", counts)]
    for name, predictor in references(data, counts[-1]).items():
        entries.append(Entry(name, "reference", run(name, predictor, counts, None)))
    for sampling in sweep(settings):
        name = f"{sampling.sampler} {sampling.steps}"
        entries.append(_model_entry(run, model, settings, sampling, name, "sweep", counts[:1]))
    return entries


def bits_per_pixel(
    model: CCDM, data: AnnotatedDataset, settings: EvalSettings, rows_folder: Path, digest: str
) -> Interval:
    """The bound on the annotators' negative log-likelihood, in bits per pixel, averaged over the images' annotators."""
    indices = evenly_spaced_indices(len(data), settings.dataset_val_max_size)
    fingerprint = fingerprint_of(digest, settings, data, [], "bits per pixel")
    store = RowStore(rows_folder / "bits_per_pixel.jsonl", fingerprint)
    todo = [index for index in indices if index not in store.rows]
    device = model.process.alpha_bar.device

    def rows_of(batch: EvaluationBatch) -> list[Row]:
        images, bits = batch.images.to(device), torch.zeros(batch.present.shape, dtype=torch.float64)
        for annotator in range(batch.present.shape[1]):
            bits[:, annotator] = model.bits_per_pixel(images, batch.labels[:, annotator].to(device)).cpu()
        mean = (bits * batch.present).sum(1) / batch.present.sum(1)
        values = zip(batch.indices.tolist(), batch.groups, mean.tolist(), strict=True)
        return [{"index": index, "group": group, "bits": value} for index, group, value in values]

    fill(store, rows_of, data, todo, settings.batch_size, settings.mp_loaders, title="bits per pixel")
    rows = [store.rows[index] for index in indices]
    return bootstrap_interval([row["bits"] for row in rows], [row["group"] for row in rows])


def references(data: AnnotatedDataset, num_samples: int) -> dict[str, Predictor]:
    """The oracle, where there is one, and the baselines."""
    named = {"oracle": oracle(data, num_samples, seed=0)} if isinstance(data, KnownDistribution) else {}
    return {**named, "majority vote": majority_vote(data.num_classes), "always empty": always_empty(data.num_classes)}


def sweep(settings: EvalSettings) -> Iterator[Sampling]:
    """Every sampler with every number of steps that is to be compared."""
    for sampler in settings.samplers:
        for steps in settings.sampling_steps:
            yield Sampling(steps=steps, sampler=sampler, eta=settings.sampling.eta)


def _model_entry(
    run: Any, model: CCDM, settings: EvalSettings, sampling: Sampling, name: str, kind: Kind, counts: list[int]
) -> Entry:
    per_seed = []
    for seed in settings.seeds:
        predictor = model_samples(model, counts[-1], sampling, seed, settings.max_batch_size)
        per_seed.append(run(f"{name} seed {seed}", predictor, counts, [sampling.model_dump(), seed]))
    return Entry(name, kind, _averaged(per_seed), sampling, _spread(per_seed))


def _averaged(per_seed: list[Scores]) -> Scores:
    """Every number averaged over the seeds, image by image; bins are summed."""
    rows: list[Row] = []
    for same_image in zip(*(scores.rows for scores in per_seed), strict=True):
        row = dict(same_image[0])
        for name, value in row.items():
            if isinstance(value, float):
                row[name] = float(np.mean([other[name] for other in same_image]))
            elif name in BINS:
                row[name] = np.sum([other[name] for other in same_image], axis=0).tolist()
        rows.append(row)
    return dataclasses.replace(per_seed[0], rows=rows)


def _spread(per_seed: list[Scores]) -> dict[str, float]:
    columns = [name for name, value in per_seed[0].rows[0].items() if isinstance(value, float)]
    means = {name: [np.mean([row[name] for row in scores.rows]) for scores in per_seed] for name in columns}
    return {name: float(np.std(values, ddof=1)) if len(values) > 1 else 0.0 for name, values in means.items()}


def fingerprint_of(
    digest: str, settings: EvalSettings, data: AnnotatedDataset, counts: list[int], made_with: Any
) -> str:
    """What rows were made with, for `RowStore`."""
    names = ("dataset_file", "dataset_params", "dataset_split", "dataset_val_max_size", "batch_size", "precision")
    about = {name: getattr(settings, name) for name in names}
    return hashlib.sha256(json.dumps([digest, about, len(data), counts, made_with]).encode()).hexdigest()
