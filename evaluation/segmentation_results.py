"""The results of a semantic segmentation as text, JSON and CSV."""

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from evaluation.classes import Classes
from evaluation.published import PAPER_CITYSCAPES
from evaluation.results import to_json
from evaluation.segmentation import SegmentationEntry
from utils.schema import VoteStrategy

PROTOCOL = {
    "iou": "TP / (TP + FP + FN) of one confusion matrix over all images, pixels whose true class is void left out",
    "mean_iou": "mean over the classes that occur, void not among them",
    "confidence": "mean of the last step's probabilities over the first n samples; void is cut before the arg max",
    "majority": "shares of the first n samples in which a class, void not among them, is the most probable",
    "network": "compared with the labels at the network's size",
    "original": "compared with the labels at their original size; fused maps are resized bilinearly, then the arg max",
    "confusion": "pixels of the images and seeds by true (rows) and predicted class, with the most samples",
    "intervals": "95 % percentile bootstrap over images, images of one group drawn together, matrices added up",
}


def published(dataset_file: str, network_size: tuple[int, int], with_dino: bool) -> dict[int, float]:
    """The paper's mean IoU in percent by number of samples, for a network of that size; empty where it has none."""
    if dataset_file != "datasets.cityscapes":
        return {}
    height, width = network_size
    return PAPER_CITYSCAPES.get(f"{height}x{width}{' with DINO' if with_dino else ''}", {})


def segmentation_table(
    entries: Sequence[SegmentationEntry], classes: Classes, paper: Mapping[int, float], strategy: VoteStrategy
) -> str:
    """IoU in percent: a line for each class, then the mean with its interval and the paper's; other samplers last."""
    headline, *others = entries
    keys = _keys(headline)
    per_class = [headline.iou(*key).tolist() for key in keys]
    means = [headline.mean_iou(*key) for key in keys]
    height, width = headline.network_size
    lines = [
        _line("IoU in percent at", [f"{height}x{width}" if size == "network" else size for size, _ in keys]),
        _line(f"samples, {strategy}", [str(count) for _, count in keys]),
        *(_line(name, map(_percent, cells)) for name, *cells in zip(classes.names, *per_class, strict=True)),
        _line("mean", [_percent(mean.mean) for mean in means]),
        _line("  95 % interval from", [_percent(mean.low) for mean in means]),
        _line("  to", [_percent(mean.high) for mean in means]),
    ]
    if paper:
        theirs = [f"{paper[n]:.1f}" if size == "network" and n in paper else "" for size, n in keys]
        lines.append(_line("paper, mean", theirs))
    for entry in others:
        ours = {key: _percent(entry.mean_iou(*key).mean) for key in _keys(entry)}
        lines.append(_line(entry.name, [ours.get(key, "") for key in keys]))
    lines.append(f"{len(headline.per_seed[0])} images, {headline.seconds_per_image:.3f} s/image")
    return "\n".join(lines)


def segmentation_json(
    entries: Sequence[SegmentationEntry], classes: Classes, paper: Mapping[int, float], about: Mapping[str, Any]
) -> str:
    """Everything that the table says and more, with `about` (settings, checkpoint), protocol and versions."""
    told = {**about, "published_mean_iou_in_percent": paper}
    return to_json(told, PROTOCOL, [_as_dict(entry, classes) for entry in entries])


def segmentation_csv(entries: Sequence[SegmentationEntry], classes: Classes) -> str:
    """One line per predictor, size, number of samples and class, and one of their mean."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["predictor", "size", "num_samples", "class", "iou", "low", "high"])
    for entry in entries:
        for size, count in _keys(entry):
            writer.writerow([entry.name, size, count, "mean", *entry.mean_iou(size, count)])
            for name, value in zip(classes.names, entry.iou(size, count).tolist(), strict=True):
                writer.writerow([entry.name, size, count, name, value, "", ""])
    return text.getvalue()


def _as_dict(entry: SegmentationEntry, classes: Classes) -> dict[str, Any]:
    measures = [
        {
            "size": size,
            "num_samples": count,
            "mean_iou": entry.mean_iou(size, count)._asdict(),
            "standard_deviation_over_seeds": entry.spread(size, count),
            "iou": dict(zip(classes.names, entry.iou(size, count).tolist(), strict=True)),
        }
        for size, count in _keys(entry)
    ]
    return {
        "name": entry.name,
        "kind": entry.kind,
        "sampling": entry.sampling.model_dump(),
        "num_images": len(entry.per_seed[0]),
        "network_size": entry.network_size,
        "seconds_per_image": entry.seconds_per_image,
        "measures": measures,
        "confusion": {size: entry.confusions(size, entry.counts[-1]).sum((0, 1)).tolist() for size in entry.sizes},
    }


def _keys(entry: SegmentationEntry) -> list[tuple[str, int]]:
    return [(size, count) for size in entry.sizes for count in entry.counts]


def _line(title: str, cells: Iterable[str]) -> str:
    return f"{title:22s}" + "".join(f"{cell:>10s}" for cell in cells)


def _percent(share: float) -> str:
    """A dash for a class that does not occur, and for the interval of a single image."""
    return "-" if math.isnan(share) else f"{100 * share:.2f}"
