"""Statistics of the samples of an image: the area of every class, and how much the samples disagree."""

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from evaluation.classes import ClassTable
from metrics import predictive_entropy
from models import Samples
from utils.logs import LOGGER
from utils.text import csv_cell, csv_text

_STATISTICS = ("mean", "std", "min", "max")
_IMAGE_COLUMNS = ("image", "file", "height", "width", "num_samples", "mean_entropy_bits")
_CLASS_COLUMNS = ("class", "name", "samples_with_class")
_AREA_COLUMNS = ("pixels", "fraction")


@dataclass(frozen=True)
class Summary:
    """The samples of one image, on the CPU."""

    samples: Tensor  # label maps, uint8, S x H x W
    probabilities: Tensor  # mean class probabilities, float32, C x H x W

    @staticmethod
    def from_samples(samples: Samples, row: int = 0) -> "Summary":
        """The summary of image `row` of a batch."""
        return Summary(samples.labels[row].cpu(), samples.probabilities[row].float().cpu())

    @property
    def entropy(self) -> Tensor:
        """Entropy of the mean probabilities in bits, 0 to log2 C: H x W."""
        return predictive_entropy(self.probabilities[None])[0] / torch.log(torch.tensor(2.0))

    def majority(self, void: int | None = None) -> Tensor:
        """The most frequent class of each pixel other than void, the lowest in case of a tie: uint8, H x W."""
        size = self.samples.shape[1:]
        most, majority = torch.full(size, -1, dtype=torch.int32), torch.zeros(size, dtype=torch.uint8)
        for label in range(len(self.probabilities)):  # one by one, without copies, as images may be large
            if label != void:
                votes = torch.zeros(size, dtype=torch.int32)
                for sample in self.samples:
                    votes += sample == label
                majority[votes > most] = label
                most = torch.maximum(most, votes)
        return majority

    def statistics(self, classes: ClassTable) -> dict[str, Any]:
        """Mean entropy, and areas in pixels and as fractions of the image, as plain data; void or background is left
        out."""
        num_samples, height, width = self.samples.shape
        return {
            "height": height,
            "width": width,
            "num_samples": num_samples,
            "mean_entropy_bits": round(float(self.entropy.mean()), 6),
            "classes": [
                {"class": label, "name": classes.names[label], **_areas(self.samples, label)} for label in classes.shown
            ],
        }


_AREAS = [(unit, name) for unit in _AREA_COLUMNS for name in _STATISTICS]
_HEADER = [*_IMAGE_COLUMNS, *_CLASS_COLUMNS, *(f"{unit}_{name}" for unit, name in _AREAS)]


def summary_rows(image: dict[str, Any]) -> list[list[str]]:
    """The cells of one line per class, from the statistics of an image with its `image` and `file`."""
    about = [image[name] for name in _IMAGE_COLUMNS]
    rows = [
        [*about, *(one[name] for name in _CLASS_COLUMNS), *(one[unit][name] for unit, name in _AREAS)]
        for one in image["classes"]
    ]
    return [[csv_cell(value) for value in row] for row in rows]


def summary_csv(rows: Iterable[Sequence[str]]) -> str:
    """A CSV file of these lines with their header."""
    return csv_text([_HEADER, *rows])


def read_summary(path: Path) -> list[list[str]]:
    """The lines of an earlier summary; none if there is no such file, or it is damaged or has other columns."""
    if not path.is_file():
        return []
    try:
        with path.open(encoding="utf-8", errors="replace", newline="") as file:
            header, *rows = list(csv.reader(file)) or [[]]
    except csv.Error as error:
        LOGGER.warning("%s is damaged (%s) and is written again", path, error)
        return []
    return [row for row in rows if len(row) == len(_HEADER)] if header == _HEADER else []


def _areas(samples: Tensor, label: int) -> dict[str, Any]:
    """The area of a class in every sample, S x H x W, and its spread over the samples."""
    areas = torch.stack([(sample == label).count_nonzero() for sample in samples])
    return {
        "samples_with_class": int((areas > 0).sum()),
        "pixels": _spread(areas.double()),
        "fraction": _spread(areas.double() / samples[0].numel()),
        "pixels_of_each_sample": areas.tolist(),
    }


def _spread(values: Tensor) -> dict[str, float | None]:
    """Mean, standard deviation (with n - 1; None for a single sample), minimum and maximum."""
    std = round(float(values.std()), 6) if len(values) > 1 else None
    mean, least, largest = (round(float(value), 6) for value in (values.mean(), values.min(), values.max()))
    return dict(zip(_STATISTICS, (mean, std, least, largest), strict=True))
