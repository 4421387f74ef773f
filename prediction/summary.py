"""What the samples of an image say in numbers: the area of every class, and how much the samples differ in it."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from metrics import label_frequencies, predictive_entropy
from models import Samples
from prediction.classes import ClassTable

_COLUMNS = ("mean", "std", "min", "max")


@dataclass(frozen=True)
class Summary:
    """One image's samples, on the CPU.

    Attributes:
        samples: the drawn label maps, uint8, S x H x W.
        probabilities: the mean class probabilities, float32, C x H x W.
    """

    samples: Tensor
    probabilities: Tensor

    @staticmethod
    def of(drawn: Samples, row: int = 0) -> "Summary":
        """Image `row` of what was drawn."""
        return Summary(drawn.labels[row].cpu(), drawn.probabilities[row].float().cpu())

    @property
    def entropy(self) -> Tensor:
        """Entropy of the mean probabilities in bits, from 0 to log2 C: H x W."""
        return predictive_entropy(self.probabilities[None])[0] / torch.log(torch.tensor(2.0))

    def majority(self, void: int | None = None) -> Tensor:
        """The class that most samples have at each pixel, void left out; of a tie, the lowest: uint8, H x W."""
        votes = label_frequencies(self.samples[None], len(self.probabilities))[0]
        if void is not None:
            votes[void] = -1
        return votes.argmax(0).to(torch.uint8)

    def areas(self) -> Tensor:
        """Pixels of each class in each sample: int64, S x C."""
        flat = self.samples.flatten(1).long()
        return torch.stack([sample.bincount(minlength=len(self.probabilities)) for sample in flat])

    def statistics(self, classes: ClassTable) -> dict[str, Any]:
        """Areas of the classes that are shown, in pixels and as parts of the image, and the mean entropy, as data."""
        pixels, areas = self.samples[0].numel(), self.areas()
        return {
            "height": self.samples.shape[1],
            "width": self.samples.shape[2],
            "num_samples": len(self.samples),
            "mean_entropy_bits": round(float(self.entropy.mean()), 6),
            "classes": [
                {
                    "class": label,
                    "name": classes.names[label],
                    "samples_with_it": int((areas[:, label] > 0).sum()),
                    "pixels": _spread(areas[:, label].double()),
                    "fraction": _spread(areas[:, label].double() / pixels),
                    "pixels_of_each_sample": areas[:, label].tolist(),
                }
                for label in classes.shown
            ],
        }


def summary_csv(images: Sequence[dict[str, Any]]) -> str:
    """One line for every image and class, from the images' statistics and their `image` and `file`."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    measures = [(unit, column) for unit in ("pixels", "fraction") for column in _COLUMNS]
    fixed = ["image", "file", "height", "width", "num_samples", "mean_entropy_bits"]
    writer.writerow([*fixed, "class", "name", "samples_with_it", *(f"{unit}_{column}" for unit, column in measures)])
    for image in images:
        for one in image["classes"]:
            own = [one["class"], one["name"], one["samples_with_it"], *(one[unit][column] for unit, column in measures)]
            writer.writerow([*(image[name] for name in fixed), *own])
    return out.getvalue()


def _spread(values: Tensor) -> dict[str, float | None]:
    """Mean, standard deviation (of the samples, with n - 1; none of a single one), least and largest."""
    std = round(float(values.std()), 6) if len(values) > 1 else None
    mean, least, largest = (round(float(value), 6) for value in (values.mean(), values.min(), values.max()))
    return dict(zip(_COLUMNS, (mean, std, least, largest), strict=True))
