"""The results of an evaluation as text, JSON and CSV."""

import csv
import io
import json
import math
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

import torch

from evaluation.evaluate import Entry
from evaluation.image_metrics import BINS, PER_COUNT, PER_IMAGE
from evaluation.paired import differences, most_steps
from evaluation.published import PAPER

PROTOCOL = {
    "distance": "1 - mean over the classes other than background of IoU; two empty masks have IoU 1, one empty: 0",
    "ged": "2 E d(label, sample) - E d(label, label') - E d(sample, sample'), all ordered pairs, diagonal included",
    "hm_iou": "both sides repeated to their least common multiple, Hungarian matching, mean IoU of the pairs",
    "annotators": "all that are present",
    "intervals": "95 % percentile bootstrap of the mean over images, images of one group (patient) drawn together",
    "differences": "of the same measure with the most steps, image by image; paired bootstrap of their mean",
    "ece": "10 equal bins over all pixels and classes, against the annotators' frequencies",
}


def table(entries: Sequence[Entry], dataset_file: str) -> str:
    """One line per predictor and number of samples, means with 95 % bootstrap intervals, the paper's numbers last."""
    lines = [f"{'':22s}{'n':>4s}  {'GED':^22s}  {'HM-IoU':^22s}  {'diversity':>9s}  {'ECE':>6s}  {'s/image':>8s}"]
    for entry in entries:
        scores = entry.scores
        for count in scores.counts:
            ged, hm_iou = (_with_interval(scores.interval(measure, count)) for measure in ("ged", "hm_iou"))
            lines.append(
                f"{entry.name:22s}{count:4d}  {ged}  {hm_iou}  {scores.mean('diversity_samples', count):9.4f}  "
                f"{scores.calibration_error('bins'):6.4f}  {scores.seconds_per_image:8.3f}"
            )
    lines.append(f"{'annotators':22s}{'':56s}{entries[0].scores.mean('diversity_labels'):9.4f}")
    lines.extend(_paired_lines(entries))
    paper = PAPER.get(dataset_file)
    if paper is not None:
        for count in sorted({count for _, count in paper.values}):
            ged, hm_iou = (_optional(paper.values.get((measure, count))) for measure in ("ged", "hm_iou"))
            lines.append(f"{'paper, ' + paper.name:22s}{count:4d}  {ged:22s}  {hm_iou:22s}")
        lines.append(paper.note)
    return "\n".join(lines)


def as_json(entries: Sequence[Entry], about: Mapping[str, Any]) -> str:
    """Everything that the table says and more, with `about` (settings, checkpoint), protocol and versions."""
    reference = most_steps(entries)
    return to_json(about, PROTOCOL, [_as_dict(entry, reference) for entry in entries])


def to_json(about: Mapping[str, Any], protocol: Mapping[str, str], results: Sequence[Mapping[str, Any]]) -> str:
    """The contents of `results.json`: `about`, the protocol, what it was run with, and the results."""
    packages = ("torch", "torchvision", "numpy", "scipy")
    contents = {
        **about,
        "protocol": protocol,
        "versions": {"python": platform.python_version(), **{name: version(name) for name in packages}},
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else platform.processor() or "cpu",
        "results": results,
    }
    return json.dumps(_without_nan(contents), indent=2, allow_nan=False)


def as_csv(entries: Sequence[Entry]) -> str:
    """One line per predictor, measure and number of samples."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["predictor", "measure", "num_samples", "mean", "low", "high", "num_images"])
    for entry in entries:
        for measure, count in measures_of(entry):
            interval = entry.scores.interval(measure, count)
            writer.writerow([entry.name, measure, count or "", *interval, len(entry.scores.rows)])
    return text.getvalue()


def per_image_csv(entries: Sequence[Entry]) -> str:
    """One line per image and predictor, with every measure."""
    columns = list(dict.fromkeys(name for entry in entries for name in entry.scores.rows[0] if name not in BINS))
    text = io.StringIO()
    writer = csv.DictWriter(text, ["predictor", *columns], extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    for entry in entries:
        writer.writerows({"predictor": entry.name, **row} for row in entry.scores.rows)
    return text.getvalue()


def measures_of(entry: Entry) -> list[tuple[str, int]]:
    """Every measure of an entry with its number of samples, or 0 where it does not depend on that."""
    by_count = [(measure, count) for measure in PER_COUNT for count in entry.scores.counts]
    return [*by_count, *((measure, 0) for measure in PER_IMAGE)]


def _paired_lines(entries: Sequence[Entry]) -> list[str]:
    """What fewer steps lose, where several numbers of them were compared."""
    reference = most_steps(entries)
    others = [entry for entry in entries if entry.kind == "sweep" and entry is not reference]
    if reference is None or not others:
        return []
    lines = [f"image by image, less {reference.name}:"]
    for entry in others:
        ged, hm_iou = (_with_interval(difference.interval) for difference in differences(entry, reference).values())
        lines.append(f"{entry.name:22s}{entry.scores.counts[0]:4d}  {ged}  {hm_iou}")
    return lines


def _as_dict(entry: Entry, reference: Entry | None) -> dict[str, Any]:
    scores = entry.scores
    measures = [
        {"measure": measure, "num_samples": count or None, **scores.interval(measure, count)._asdict()}
        for measure, count in measures_of(entry)
    ]
    return {
        "name": entry.name,
        "kind": entry.kind,
        "sampling": entry.sampling.model_dump() if entry.sampling else None,
        "num_images": len(scores.rows),
        "seconds_per_image": scores.seconds_per_image,
        "expected_calibration_error": scores.calibration_error("bins"),
        "expected_calibration_error_of_samples": scores.calibration_error("bins_samples"),
        "standard_deviation_over_seeds": entry.spread,
        "measures": measures,
        "differences": [] if entry.kind != "sweep" or reference is None else _differences(entry, reference),
    }


def _differences(entry: Entry, reference: Entry) -> list[dict[str, Any]]:
    return [
        {"measure": measure, "less": difference.reference, **difference.interval._asdict()}
        for measure, difference in differences(entry, reference).items()
    ]


def _with_interval(interval: Any) -> str:
    return f"{interval.mean:.4f} [{interval.low:.3f}, {interval.high:.3f}]"


def _optional(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _without_nan(value: Any) -> Any:
    """NaN has no place in JSON: an interval over a single group becomes null."""
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
