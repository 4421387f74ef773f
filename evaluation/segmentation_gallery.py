"""The images that the report of a semantic segmentation shows, predicted again."""

import matplotlib
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from datasets.loading import evaluation_batches
from datasets.normalisation import Normalisation
from evaluation.cache import Row
from evaluation.classes import Classes, SemanticDataset
from evaluation.fusion import fused_samples, label_map
from evaluation.gallery import Exhibit, by_rank
from evaluation.panels import Cell, image_cell
from evaluation.segmentation import SegmentationEntry, column, true_maps
from metrics import mean_iou, predictive_entropy
from models import CCDM
from utils.schema import EvalSettings

_RIGHT, _WRONG, _VOID = (255, 255, 255), (213, 94, 0), (150, 156, 163)


def segmentation_gallery(
    model: CCDM, data: SemanticDataset, settings: EvalSettings, entry: SegmentationEntry
) -> list[Exhibit]:
    """About `n_validation_images` images with the prediction that was scored: of the first seed and the most samples.

    The best, the median and the worst by their own mean IoU, drawn one by one as in `evaluation.gallery`.
    """
    classes, count = Classes.of(data), entry.counts[-1]
    strategy, seed = settings.evaluation_vote_strategy, settings.seeds[0]
    fuser = fused_samples(model, [count], classes.kept, strategy, entry.sampling, seed, settings.max_batch_size)
    normalisation = Normalisation.from_dataset(data)
    exhibits: list[Exhibit] = []
    for rank, rows in by_rank(_sorted(entry.per_seed[0], count), settings.n_validation_images).items():
        for row in rows:
            (batch,) = evaluation_batches(data, [row["index"]], 1, workers=0)
            image, truth = normalisation.undo(batch.images[0]), true_maps(batch, 0, classes)["network"]
            cells = [image_cell(image), *prediction_cells(fuser(batch)[0, -1].cpu(), truth, classes.palette())]
            exhibits.append(Exhibit(rank, row, cells, []))
    return exhibits


def own_scores(row: Row, count: int) -> tuple[float, float]:
    """Of one image at the network's size: mean IoU over the classes that occur in it, and the share of right pixels.

    Both are NaN where all of its pixels are void.
    """
    matrix = torch.tensor(row[column("network", count)])
    return float(mean_iou(matrix)), float(matrix.trace() / matrix.sum())


def prediction_cells(fused: Tensor, truth: Tensor, palette: NDArray[np.uint8]) -> list[Cell]:
    """The true label map, the predicted one, where they differ, and the entropy of the fused map.

    Args:
        fused: C' x H x W, of `evaluation.fusion.fuse`.
        truth: positions 0 .. C'-1, void C', H x W.
        palette: colours of `Classes.palette`, (C' + 1) x 3.
    """
    num_classes = len(fused)
    prediction = label_map(fused, truth.shape)
    outcome = torch.where(truth == num_classes, 2, (prediction != truth).long())
    probabilities = fused / fused.sum(0).clamp(min=torch.finfo(fused.dtype).tiny)  # void was cut
    entropy = predictive_entropy(probabilities[None])[0] / np.log(2)
    return [
        _painted("label map", truth, palette),
        _painted("prediction", prediction, palette),
        _painted("where they differ", outcome, np.array([_RIGHT, _WRONG, _VOID], dtype=np.uint8)),
        Cell("entropy", entropy.numpy(), matplotlib.colormaps["magma"], max(1.0, float(np.log2(num_classes)))),
    ]


def _painted(title: str, labels: Tensor, colours: NDArray[np.uint8]) -> Cell:
    """A label map, each class in its colour."""
    return Cell(title, colours[labels.numpy()] / 255, matplotlib.colormaps["gray"])


def _sorted(rows: list[Row], count: int) -> list[Row]:
    """The best first; images that are all void at this size have no rank."""
    values = np.array([own_scores(row, count)[0] for row in rows])
    return [rows[place] for place in np.argsort(-values, kind="stable") if not np.isnan(values[place])]
