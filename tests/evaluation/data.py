"""Small datasets with known label maps."""

from collections.abc import Sequence
from typing import Any

import torch

from datasets.loading import EvaluationBatch
from evaluation import EvalSettings, Evaluation, Predictor, Result, score
from models import CCDM
from tests import tiny

HOSTILE = '<script>alert("x")</script>&<img src=http://example.org/x onerror=alert(1)>'


class Maps:
    """Images of one row of pixels, given by their annotators' label maps; class `void` is not evaluated."""

    image_channels = 1

    def __init__(
        self, *labels: list[list[int]], groups: list[int] | None = None, num_classes: int = 2, void: int | None = None
    ) -> None:
        self.labels = [torch.tensor(maps, dtype=torch.uint8)[:, None] for maps in labels]
        self.groups, self.num_classes, self.void_class = groups or list(range(len(labels))), num_classes, void

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> dict[str, Any]:
        labels = self.labels[index]
        return {"image": torch.zeros(1, *labels.shape[1:]), "labels": labels, "name": f"image {index}"} | {
            "group": self.groups[index]
        }


class Scenes:
    """Two images of 2 x 2 pixels with the classes a and b, and void in between."""

    num_classes, image_channels, void_class = 3, 1, 1
    class_names, class_ids, class_colours = ("a", "nothing", "b"), (7, 0, 9), ((1, 2, 3), (0, 0, 0), (4, 5, 6))
    labels = (((0, 0), (2, 1)), ((2, 2), (2, 0)))

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> dict[str, Any]:
        labels = torch.tensor(self.labels[index], dtype=torch.uint8)[None]
        return {"image": torch.zeros(1, 2, 2), "labels": labels, "name": f"town_{index}"}


class Streets:
    """Five images of three classes, whose names have to be escaped, and void; the middle class does not occur."""

    num_classes, image_channels, void_class = 4, 3, 3
    class_names = (HOSTILE, "nowhere", "$a_b$ & \\frac", "void")
    class_colours = ((128, 64, 128), (70, 70, 70), (0, 0, 142), (0, 0, 0))

    def __len__(self) -> int:
        return 5

    def __getitem__(self, index: int) -> dict[str, Any]:
        labels = torch.zeros(1, 8, 16, dtype=torch.uint8)
        labels[:, : index + 1], labels[:, :, :2] = 2, 3
        large = labels.repeat_interleave(2, 1).repeat_interleave(2, 2)
        image = tiny.images(1, 3, (8, 16), index)[0]
        return {"image": image, "labels": labels, "name": f"{HOSTILE}{index}", "original_labels": large}


def batch_of(labels: Sequence[Any], present: list[list[bool]] | None = None) -> EvaluationBatch:
    """A batch of images of one row of pixels: `labels` are B x A x W."""
    maps = torch.tensor(labels, dtype=torch.uint8)[:, :, None]
    number = len(maps)
    there = torch.ones(maps.shape[:2], dtype=torch.bool) if present is None else torch.tensor(present)
    images = torch.zeros(number, 1, *maps.shape[-2:])
    return EvaluationBatch(images, maps, there, torch.arange(number), ["name"] * number, list(range(number)), [])


def score_all(
    predictor: Predictor, dataset: Any, *, num_samples: tuple[int, ...] = (1,), batch_size: int = 40, **options: Any
) -> Result:
    return score(predictor, dataset, range(len(dataset)), num_samples, batch_size=batch_size, **options)


def without_seconds(result: Result) -> list[tuple[int, dict[str, Any]]]:
    return [(image.index, {**image.values, "seconds": 0}) for image in result.images]


def evaluation(data: Any, model: CCDM | None = None, **settings: Any) -> Evaluation:
    return Evaluation(model or tiny.model(data.num_classes, data.image_channels), data, EvalSettings(**settings), "a")
