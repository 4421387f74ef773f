"""What an evaluation consists of: which predictors are scored, on which images, at which numbers of samples.

Data with several annotators is scored as a distribution. Data with a void class and one label map per image is scored
as a segmentation, as Cityscapes is in the paper (Zbinden et al., ICCV 2023, Table 3): the first n samples of an image
are fused into one prediction, and all pixels of the split are counted in one confusion matrix.
"""

import dataclasses
import itertools
import math
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from datasets import AnnotatedDataset, KnownDistribution
from datasets.digest import data_digest, file_stamp, read_few
from datasets.loading import EvaluationBatch, evaluation_batches, evenly_spaced_indices
from diffusion import PixelwiseClassifier, SamplingConfig
from evaluation import predictors
from evaluation.cache import ResultCache, fingerprint
from evaluation.classes import ClassTable, LabelFiles
from evaluation.image_metrics import SELECTION, Task, check_annotated, column, compute_metrics
from evaluation.predictors import FusedPrediction, FusedPredictor, Predictor
from evaluation.results import ImageScores, Kind, Result
from evaluation.settings import EvalSettings
from models import CCDM
from utils.distributed import all_gather_objects, broadcast_from_main, is_main, shard, world_size
from utils.errors import UserError


def task_of(data: AnnotatedDataset) -> Task:
    """How data is scored; if it does not say how many annotators there are, a few of the images are read to see."""
    if void_class(data) is None:
        return "distribution"
    most = getattr(data, "max_annotators", None) or max(len(few.labels[0]) for few in read_few(data, range(len(data))))
    return "distribution" if most > 1 else "segmentation"


def void_class(data: AnnotatedDataset) -> int | None:
    """The class of a dataset that is not evaluated, if there is one."""
    return getattr(data, "void_class", None)


def baselines(data: AnnotatedDataset, num_samples: int) -> dict[str, Predictor]:
    """What a model is compared with: predictors that need no model and, if the distribution is known, the oracle."""
    if task_of(data) == "segmentation":
        return {}
    known = {"oracle": predictors.oracle(data, num_samples)} if isinstance(data, KnownDistribution) else {}
    return {
        **known,
        "majority vote": predictors.majority_vote(data.num_classes),
        "always empty": predictors.always_empty(data.num_classes),
    }


def score_model(
    model: CCDM,
    data: AnnotatedDataset,
    indices: Sequence[int],
    num_samples: Sequence[int],
    sampling: SamplingConfig,
    seed: int,
    *,
    strategy: str = "confidence",
    max_batch_size: int | None = None,
    **options: Any,
) -> Result:
    """Score the samples of a model in evaluation mode, as a distribution or a segmentation.

    Args:
        data, indices, num_samples, options: those of `score`.
        sampling, seed, max_batch_size: see `CCDM.sample`.
        strategy: how the samples of a segmentation are fused, see `predictors.fuse`.

    Raises UserError for more steps than the process has, or images without annotations.
    """
    counts, void, sampling = sorted(set(num_samples)), void_class(data), sampling.resolve(model.process)
    how = sampling, seed, max_batch_size
    if task_of(data) == "distribution":
        predictor: Predictor | FusedPredictor = predictors.model_samples(model, counts[-1], *how)
    else:
        predictor = predictors.fused_samples(model, counts, *how, void=void, strategy=strategy)
    return dataclasses.replace(score(predictor, data, indices, counts, **options), sampling=sampling)


def score(
    predictor: Predictor | FusedPredictor,
    data: AnnotatedDataset,
    indices: Sequence[int],
    num_samples: Sequence[int],
    *,
    label_files: LabelFiles | None = None,
    **options: Any,
) -> Result:
    """Score predictions against the annotations.

    Args:
        predictor: label maps and probabilities or, for a segmentation, fused maps. One with fewer samples than any of
            `num_samples` is scored at the number it has.
        label_files: receives the label maps of a segmentation.
        options: those of `evaluate_in_batches`.
    """
    void, task = void_class(data), task_of(data)

    def score_batch(batch: EvaluationBatch) -> list[ImageScores]:
        if void is not None:
            check_annotated(batch, void, task)
        start = time.perf_counter()
        prediction = predictor(batch)
        seconds = torch.tensor([time.perf_counter() - start]).double() / len(batch.names)
        if label_files is not None and isinstance(prediction, FusedPrediction):
            truths = batch.original_labels or list(batch.labels)
            for name, maps, truth in zip(batch.names, prediction.maps, truths, strict=True):
                label_files.write(name, predictors.fused_label_map(maps[-1], truth.shape[1:]))
        values = compute_metrics(batch, prediction, data.num_classes, void, num_samples)
        return _image_scores(batch, {"seconds": seconds.expand(len(batch.names)), **values})

    is_done = None if label_files is None else label_files.exist
    images = evaluate_in_batches(data, indices, score_batch, is_done=is_done, **options)
    repeated, times = Counter(image.name for image in images).most_common(1)[0]
    if label_files is not None and times > 1:
        raise UserError(f"{times} images have the name {repeated!r}, by which predictions are stored; expected one")
    name = SELECTION[task][0]
    return Result(task, [images], [n for n in sorted({1, *num_samples}) if column(name, n) in images[0].values])


def evaluate_in_batches(
    data: AnnotatedDataset,
    indices: Sequence[int],
    score_batch: Callable[[EvaluationBatch], list[ImageScores]],
    *,
    batch_size: int = 16,
    workers: int = 0,
    before_batch: Callable[[], None] | None = None,
    title: str | None = None,
    cache: ResultCache | None = None,
    is_done: Callable[[str], bool] | None = None,
) -> list[ImageScores]:
    """The scores of the images of `indices`, sorted. Processes share the batches; all of them get all scores.

    Args:
        score_batch: called for the batches of this process.
        batch_size: images per batch.
        workers: processes that load data.
        before_batch: called by all processes before every batch; an exception ends the evaluation.
        title: shows progress under this name.
        cache: scores that it has are not computed again.
        is_done: given the name of an image whose scores are cached, whether its other outputs exist.
    """
    cache = ResultCache() if cache is None else cache

    def missing() -> list[int]:
        done = {index for index, scores in cache.scores.items() if is_done is None or is_done(scores.name)}
        return [index for index in indices if index not in done]

    todo = broadcast_from_main(missing)
    batches = iter(evaluation_batches(data, todo, batch_size, workers, shard()))
    rounds = math.ceil(len(todo) / batch_size / world_size())
    for _ in tqdm(range(rounds), desc=title, disable=title is None or not is_main(), leave=False):
        if before_batch is not None:
            before_batch()
        batch = next(batches, None)
        for scores in all_gather_objects([] if batch is None else score_batch(batch)):
            if scores:
                cache.add(scores)
    return [cache.scores[index] for index in sorted(indices)]


class Evaluation:
    """Everything that the settings of `ddpm_eval.py` ask for, of a model in evaluation mode on a split.

    `auto`, `dataset_file` and `dataset_params` are resolved in the settings; `digest` identifies the weights. Raises
    UserError for more sampling steps than the process has, and for a likelihood with a void class.
    """

    def __init__(self, model: CCDM, data: AnnotatedDataset, settings: EvalSettings, digest: str) -> None:
        self.model, self.data, self.settings, self.digest = model, data, settings, digest
        self.classes = ClassTable.from_dataset(data)
        self.indices = evenly_spaced_indices(len(data), settings.dataset_val_max_size)
        self.task = task_of(data)
        self.is_classifier = isinstance(model.process, PixelwiseClassifier)
        self.num_samples = sorted(set(settings.num_samples))
        if self.is_classifier and self.task == "segmentation":
            self.num_samples = [1]  # all samples have the same probabilities
        self.sampling = settings.sampling.resolve(model.process)
        others = sorted(set(itertools.product(settings.sweep.samplers, settings.sweep.steps)))
        changes = [{"sampler": sampler, "steps": steps} for sampler, steps in others]
        self.sweep = [settings.sampling.model_copy(update=change).resolve(model.process) for change in changes]
        if settings.bits_per_pixel and self.classes.void is not None:
            raise UserError("bits_per_pixel: the likelihood is not defined for data with a void class")

    def run(self, folder: Path) -> list[Result]:
        """The model, what it is compared with, and the sweep; what an earlier run left in `folder` is not repeated."""
        results = [self._score(folder, "model", "model", self.sampling, self.num_samples)]
        if self.settings.bits_per_pixel:
            results = [self._with_bits_per_pixel(results[0], folder)]
        if self.is_classifier and self.task == "distribution":
            argmax = self.sampling.model_copy(update={"last_step": "argmax"})
            results.append(self._score(folder, "arg max per pixel", "baseline", argmax, [1]))
        for name, predictor in baselines(self.data, self.num_samples[-1]).items():
            options = self._options(folder, name, self.num_samples)
            result = score(predictor, self.data, self.indices, self.num_samples, **options)
            results.append(dataclasses.replace(result, name=name, kind="baseline"))
        first = self.settings.num_samples[:1]
        for sampling in self.sweep:
            name = f"{sampling.sampler} {sampling.steps}"
            if (sampling, first) == (self.sampling, self.num_samples):  # the same samples as those of the model
                results.append(dataclasses.replace(results[0], name=name, kind="sweep"))
            else:
                results.append(self._score(folder, name, "sweep", sampling, first))
        return results

    def _score(self, folder: Path, name: str, kind: Kind, sampling: SamplingConfig, num_samples: list[int]) -> Result:
        """Score the model with every seed; the first seed of a segmentation also writes label files."""
        settings = self.settings
        per_seed: list[list[ImageScores]] = []
        for seed in settings.seeds:
            writes = self.task == "segmentation" and kind == "model" and not per_seed
            options = self._options(folder, f"{name} seed {seed}", num_samples, sampling.model_dump(), seed)
            result = score_model(
                self.model, self.data, self.indices, num_samples, sampling, seed,
                strategy=settings.evaluation_vote_strategy, max_batch_size=settings.max_batch_size,
                label_files=LabelFiles(folder, self.classes, options["cache"].fingerprint) if writes else None,
                **options,
            )  # fmt: skip
            per_seed.append(result.images)
        return Result(self.task, per_seed, num_samples, name, kind, sampling)

    def _with_bits_per_pixel(self, result: Result, folder: Path) -> Result:
        """Add the bound on the negative log-likelihood, averaged over the annotators of an image."""
        device = self.model.device

        def score_batch(batch: EvaluationBatch) -> list[ImageScores]:
            images, annotators = batch.images.to(device), batch.labels.to(device).unbind(1)
            bits = torch.stack([self.model.bits_per_pixel(images, labels).cpu() for labels in annotators], 1)
            mean = (bits * batch.present).sum(1) / batch.present.sum(1)
            return _image_scores(batch, {"bits_per_pixel": mean})

        options = self._options(folder, "bits per pixel", [])
        scores = evaluate_in_batches(self.data, self.indices, score_batch, **options)
        pairs = [zip(images, scores, strict=True) for images in result.per_seed]
        per_seed = [[dataclasses.replace(one, values=one.values | bits.values) for one, bits in seed] for seed in pairs]
        return dataclasses.replace(result, per_seed=per_seed)

    def _options(self, folder: Path, name: str, num_samples: list[int], *made_with: Any) -> dict[str, Any]:
        """Options of `evaluate_in_batches`, with the cache of the scores of that name."""
        keys = ["dataset_file", "dataset_params", "dataset_split", "dataset_val_max_size", "batch_size", "precision"]
        keys += ["evaluation_vote_strategy"] if self.task == "segmentation" else []
        about = {key: getattr(self.settings, key) for key in keys}
        identity = fingerprint(self.task, [self.digest, about, self._data_digest, num_samples, made_with])
        cache = ResultCache(folder / "cache" / f"{name.replace(' ', '_')}.jsonl", identity)
        batch_size, workers = self.settings.batch_size, self.settings.mp_loaders
        return {"batch_size": batch_size, "workers": workers, "title": name, "cache": cache}

    @cached_property
    def _data_digest(self) -> tuple[str, str]:
        return data_digest(self.data, self.indices), file_stamp(self.data)


def _image_scores(batch: EvaluationBatch, values: Mapping[str, Tensor]) -> list[ImageScores]:
    columns = {name: numbers.tolist() for name, numbers in values.items()}
    rows = [{name: numbers[row] for name, numbers in columns.items()} for row in range(len(batch.names))]
    described = zip(batch.indices.tolist(), batch.names, batch.groups, rows, strict=True)
    size = batch.images.shape[-2], batch.images.shape[-1]
    return [ImageScores(index, name, group, size, row) for index, name, group, row in described]
