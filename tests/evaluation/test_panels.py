"""Panels: the right pictures, for any number of classes, channels and annotators, and images of any size."""

import io
from typing import Any

import matplotlib.image
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from datasets.loading import EvaluationBatch
from evaluation import Prediction, sample_panel
from metrics import label_frequencies


class Images:
    """Images of random size, annotators, classes and channels, each with samples of its own."""

    def __init__(self, annotators: list[int], num_classes: int = 2, channels: int = 1, samples: int = 4) -> None:
        self.num_classes, self.image_channels = num_classes, channels
        rng, self.items, self.samples = torch.Generator().manual_seed(0), [], []
        for number, count in enumerate(annotators):
            size = 6 + number, 9
            draw = lambda n, size=size: torch.randint(num_classes, (n, *size), generator=rng).to(torch.uint8)  # noqa: E731
            image = torch.randn(channels, *size, generator=rng)
            self.items.append({"image": image, "labels": draw(count), "name": f"{number}"})
            self.samples.append(draw(samples))

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.items[index]

    def predict(self, batch: EvaluationBatch) -> Prediction:
        samples = torch.stack([self.samples[index] for index in batch.indices])
        return Prediction(samples, label_frequencies(samples, self.num_classes))

    def panel(self, max_samples: int = 6) -> Figure:
        return sample_panel(self, range(len(self)), self.predict, max_samples)


def decoded(figure: Figure) -> np.ndarray:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=50)
    buffer.seek(0)
    return matplotlib.image.imread(buffer)


@pytest.mark.parametrize(
    ("annotators", "samples", "num_classes", "channels"),
    [([3, 3], 4, 2, 1), ([1], 1, 2, 1), ([4], 20, 5, 3), ([1, 2, 1], 2, 20, 2)],
)
def test_panel_has_a_picture_of_everything_although_sizes_differ(
    annotators: list[int], samples: int, num_classes: int, channels: int
) -> None:
    figure = Images(annotators, num_classes, channels, samples).panel()
    rows, columns = len(annotators), 1 + max(annotators) + min(samples, 6) + 2
    assert len(figure.axes) == rows * columns
    pixels = decoded(figure)
    width, height = figure.get_size_inches()
    assert pixels.shape == (int(height * 50), int(width * 50), 4)
    assert width / height == pytest.approx(columns / rows, rel=0.35)
    assert pixels[..., :3].std() > 0.05


def test_titles_name_the_columns() -> None:
    titles = [axes.get_title() for axes in Images([2, 3]).panel().axes]
    annotators, samples = ([f"{word} {k}" for k in range(1, n + 1)] for word, n in (("annotator", 3), ("sample", 4)))
    assert titles[:10] == ["image", *annotators, *samples, "mean probability", "entropy"]
    assert titles[10:] == [""] * 10
    assert "most probable" in [axes.get_title() for axes in Images([1], num_classes=3).panel().axes]


def shown(figure: Figure, place: int) -> np.ndarray:
    return np.asarray(figure.axes[place].images[0].get_array())


def test_pictures_show_labels_samples_mean_and_entropy() -> None:
    data = Images([3])
    figure = data.panel()
    for annotator in range(3):
        assert np.array_equal(shown(figure, 1 + annotator)[..., 0], data.items[0]["labels"][annotator])
    for sample in range(4):
        assert np.array_equal(shown(figure, 4 + sample)[..., 0], data.samples[0][sample])
    mean = data.samples[0].double().mean(0).numpy()
    assert np.allclose(shown(figure, 8), mean, atol=1e-6)
    entropy = -sum(np.where(p > 0, p * np.log2(np.maximum(p, 1e-9)), 0) for p in (mean, 1 - mean))
    assert np.allclose(shown(figure, 9), entropy, atol=1e-5)


def test_absent_annotator_leaves_its_place_empty() -> None:
    figure = Images([3, 2]).panel()
    assert [place for place, axes in enumerate(figure.axes) if not axes.images] == [10 + 3]


def test_image_of_one_value_renders() -> None:
    data = Images([1])
    data.items[0]["image"] = torch.full((1, 6, 9), 0.5)
    figure = data.panel()
    assert np.isfinite(shown(figure, 0)).all()
    assert decoded(figure).size > 0
