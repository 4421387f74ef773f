"""Semantic segmentation with one true label map an image: mean IoU of fused samples over a split.

The protocol of Cityscapes in the paper (Zbinden et al., ICCV 2023, Table 3): the first n samples of an image are fused
into one prediction (see `evaluation.fusion`), void is no class that can be predicted, and all pixels of the split whose
true class is not void are counted in one confusion matrix. Predictions are compared with the labels at the network's
size, as in the paper, and, resized, at the labels' original size, as in the benchmark.
"""

import dataclasses
import time
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from datasets.loading import EvaluationBatch, evenly_spaced_indices
from evaluation.cache import Row, RowStore
from evaluation.classes import Classes, SemanticDataset
from evaluation.evaluate import fingerprint_of, sweep
from evaluation.fusion import Fuser, fused_samples, label_map
from evaluation.label_files import LabelFiles
from evaluation.predictors import CLASSIFIER_ARGMAX
from evaluation.sharing import fill
from metrics import Interval, confusion_matrix, iou_per_class, mean_iou
from models import CCDM
from utils.distributed import broadcast_from_main
from utils.errors import UserError
from utils.schema import EvalSettings, Sampling

SIZES = ("network", "original")
"""Where predictions and labels are compared; the second where the data set gives its labels at their original size."""

NUM_RESAMPLES = 1000

Kind = Literal["model", "sweep"]


@runtime_checkable
class GivesOriginalLabels(Protocol):
    """A data set whose items carry their labels at the original size when this is switched on."""

    original_labels: bool


@dataclasses.dataclass(frozen=True)
class SegmentationEntry:
    """One line of the results: the model, or the model with other steps.

    Attributes:
        name: what the line is called.
        kind: "model" for the headline, "sweep" for other steps and samplers.
        sampling: how samples were drawn.
        counts: the numbers of samples that were fused.
        per_seed: for every seed a row of each image: `index`, `name`, `group`, `seconds`, the network's `size`, and a
            C' x C' confusion matrix, true classes by predicted ones, under each name of `column`.
    """

    name: str
    kind: Kind
    sampling: Sampling
    counts: list[int]
    per_seed: list[list[Row]]

    @property
    def sizes(self) -> list[str]:
        """Those of `SIZES` at which there are results."""
        return [size for size in SIZES if column(size, self.counts[0]) in self.per_seed[0][0]]

    @property
    def network_size(self) -> tuple[int, int]:
        """Height and width of what the network draws."""
        height, width = self.per_seed[0][0]["size"]
        return height, width

    @property
    def seconds_per_image(self) -> float:
        """Wall time of drawing, fusing and comparing, per image."""
        return float(np.mean([row["seconds"] for rows in self.per_seed for row in rows]))

    def confusions(self, size: str, count: int) -> Tensor:
        """The confusion matrices of the images: int64, seeds x images x C' x C'."""
        return torch.tensor([[row[column(size, count)] for row in rows] for rows in self.per_seed])

    def iou(self, size: str, count: int) -> Tensor:
        """IoU of every class, the mean over the seeds: float64, C'; NaN for a class that does not occur."""
        return iou_per_class(self.confusions(size, count).sum(1)).nanmean(0)

    def mean_iou(self, size: str, count: int) -> Interval:
        """Mean IoU, the mean over the seeds, with its 95 % bootstrap interval over groups of images."""
        return bootstrap_miou(self.confusions(size, count), [row["group"] for row in self.per_seed[0]])

    def spread(self, size: str, count: int) -> float:
        """Standard deviation of the mean IoU over the seeds; 0 for one seed."""
        values = mean_iou(self.confusions(size, count).sum(1))
        return float(values.std()) if len(values) > 1 else 0.0


def column(size: str, count: int) -> str:
    """The name of a confusion matrix in a row: one of `SIZES`, and the number of samples."""
    return f"{size}_{count}"


def bootstrap_miou(confusions: Tensor, groups: list[int]) -> Interval:
    """Mean IoU with its 95 % percentile bootstrap interval: groups of images are drawn and their matrices added up.

    Args:
        confusions: seeds x images x C' x C'; mean IoU is averaged over the seeds.
        groups: the group (patient) of each image.

    Returns:
        Values in [0, 1]; the ends are NaN for a single group.
    """
    names, members = np.unique(groups, return_inverse=True)
    of_group = confusions.new_zeros((len(confusions), len(names), *confusions.shape[2:]))
    of_group.index_add_(1, torch.from_numpy(members), confusions)
    low = high = float("nan")
    if len(names) > 1:
        times = np.random.default_rng(0).multinomial(len(names), np.full(len(names), 1 / len(names)), NUM_RESAMPLES)
        resampled = torch.einsum("rg,sgtp->srtp", torch.from_numpy(times).double(), of_group.double())
        low, high = np.quantile(mean_iou(resampled).mean(0), [0.025, 0.975])
    return Interval(float(mean_iou(confusions.sum(1)).mean()), float(low), float(high))


def evaluate_segmentation(
    model: CCDM, data: SemanticDataset, settings: EvalSettings, folder: Path, digest: str
) -> list[SegmentationEntry]:
    """Score everything that the settings ask for, continuing from what an earlier run left in `folder`.

    The headline's predictions, of the first seed and the largest number of samples, are kept as `LabelFiles`.

    Args:
        digest: identifies the weights; what was made with other weights, data or settings is made anew.

    Raises:
        UserError: for an image with several label maps, or with nothing but void.
    """
    if isinstance(data, GivesOriginalLabels):
        data.original_labels = True
    classes, strategy = Classes.of(data), settings.evaluation_vote_strategy

    def run(name: str, kind: Kind, sampling: Sampling, counts: list[int]) -> SegmentationEntry:
        per_seed = []
        for seed in settings.seeds:
            fingerprint = fingerprint_of(digest, settings, data, counts, [strategy, sampling.model_dump(), seed])
            store = RowStore(folder / "rows" / f"fused {name} seed {seed}.jsonl".replace(" ", "_"), fingerprint)
            fuser = fused_samples(model, counts, classes.kept, strategy, sampling, seed, settings.max_batch_size)
            files = LabelFiles(folder, classes) if kind == "model" and seed == settings.seeds[0] else None
            per_seed.append(compare(fuser, data, settings, counts, store, files, title=f"{name} seed {seed}"))
        return SegmentationEntry(name, kind, sampling, counts, per_seed)

    counts = sorted(set(settings.evaluations))
    if model.is_classifier:  # its samples have the same probabilities, all of them
        return [run("model", "model", CLASSIFIER_ARGMAX, [1])]
    headline = run("model", "model", settings.sampling, counts)
    return [headline, *(run(f"{s.sampler} {s.steps}", "sweep", s, counts[:1]) for s in sweep(settings))]


def compare(
    fuser: Fuser,
    data: SemanticDataset,
    settings: EvalSettings,
    counts: list[int],
    store: RowStore,
    files: LabelFiles | None = None,
    title: str | None = None,
) -> list[Row]:
    """The rows of all images, sorted; only those are predicted that `store` and `files` do not hold already."""
    classes, indices = Classes.of(data), evenly_spaced_indices(len(data), settings.dataset_val_max_size)
    done = {index for index, row in store.rows.items() if files is None or files.hold(row["name"])}
    todo = broadcast_from_main(lambda: [index for index in indices if index not in done])

    def rows_of(batch: EvaluationBatch) -> list[Row]:
        truths = [true_maps(batch, row, classes) for row in range(len(batch.images))]
        start = time.perf_counter()
        fused = fuser(batch)
        matrices = [_confusions(maps, truth, counts) for maps, truth in zip(fused, truths, strict=True)]
        seconds = (time.perf_counter() - start) / len(truths)
        if files is not None:
            for name, maps, truth in zip(batch.names, fused, truths, strict=True):
                files.write(name, label_map(maps[-1], truth.get("original", truth["network"]).shape))
        described = zip(batch.indices.tolist(), batch.names, batch.groups, matrices, strict=True)
        return [
            {"index": i, "name": name, "group": group, "seconds": seconds, "size": list(fused.shape[-2:]), **cells}
            for i, name, group, cells in described
        ]

    fill(store, rows_of, data, todo, settings.batch_size, settings.mp_loaders, title=title)
    return [store.rows[index] for index in indices]


def true_maps(batch: EvaluationBatch, row: int, classes: Classes) -> dict[str, Tensor]:
    """The label map of an image of the batch at each of `SIZES`: positions in `Classes`, void C', int64.

    Raises:
        UserError: where there are several, or nothing but void.
    """
    name, num_annotators = batch.names[row], int(batch.present[row].sum())
    if num_annotators != 1:
        raise UserError(f"{name} has {num_annotators} label maps; a data set with a void_class has one for each image")
    maps = {"network": classes.positions(batch.labels[row, 0])}
    if batch.original_labels:
        maps["original"] = classes.positions(batch.original_labels[row][0])
    if all(bool((labels == len(classes)).all()) for labels in maps.values()):
        raise UserError(
            f"{name} has no annotations: all of its pixels are void; take a dataset_split with public annotations "
            f"(of Cityscapes, val)"
        )
    return maps


def _confusions(fused: Tensor, truth: dict[str, Tensor], counts: list[int]) -> dict[str, list[list[int]]]:
    """The confusion matrices of one image under their names."""
    num_classes = fused.shape[1]
    return {
        column(size, count): confusion_matrix(
            labels.to(fused.device), label_map(maps, labels.shape), num_classes, ignore_index=num_classes
        ).tolist()
        for size, labels in truth.items()
        for count, maps in zip(counts, fused, strict=True)
    }
