"""Pictures: the right cells with the right contents, for any number of classes, channels and annotators."""

import io

import matplotlib.image
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from datasets.loading import EvaluationBatch
from evaluation import Prediction, sample_panel
from metrics import label_frequencies


def panel(
    rows: int = 2,
    annotators: int = 3,
    samples: int = 4,
    num_classes: int = 2,
    channels: int = 1,
    size: tuple[int, int] = (6, 9),
    max_samples: int = 6,
) -> tuple[Figure, EvaluationBatch, Prediction]:
    rng = torch.Generator().manual_seed(0)
    labels = torch.randint(num_classes, (rows, annotators, *size), generator=rng).to(torch.uint8)
    drawn = torch.randint(num_classes, (rows, samples, *size), generator=rng).to(torch.uint8)
    present = torch.ones(rows, annotators, dtype=torch.bool)
    present[-1, -1] = annotators == 1
    images = torch.randn(rows, channels, *size, generator=rng)
    batch = EvaluationBatch(images, labels, present, torch.arange(rows), ["x"] * rows, list(range(rows)), [])
    prediction = Prediction(drawn, label_frequencies(drawn, num_classes))
    return sample_panel(batch, prediction, max_samples), batch, prediction


def decoded(figure: Figure) -> np.ndarray:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=50)
    buffer.seek(0)
    return matplotlib.image.imread(buffer)


@pytest.mark.parametrize(
    ("rows", "annotators", "samples", "num_classes", "channels"),
    [(2, 3, 4, 2, 1), (1, 1, 1, 2, 1), (1, 4, 20, 5, 3), (3, 1, 2, 20, 2)],
)
def test_panel_has_a_cell_for_everything_and_renders(
    rows: int, annotators: int, samples: int, num_classes: int, channels: int
) -> None:
    figure, _, _ = panel(rows, annotators, samples, num_classes, channels)
    columns = 1 + annotators + min(samples, 6) + 2
    assert len(figure.axes) == rows * columns
    pixels = decoded(figure)
    width, height = figure.get_size_inches()
    assert pixels.shape == (int(height * 50), int(width * 50), 4)
    assert width / height == pytest.approx(columns / rows, rel=0.35)
    assert pixels[..., :3].std() > 0.05


def test_titles_name_the_columns() -> None:
    figure, _, _ = panel()
    titles = [axes.get_title() for axes in figure.axes]
    annotators, samples = ([f"{word} {k}" for k in range(1, n + 1)] for word, n in (("annotator", 3), ("sample", 4)))
    assert titles[:10] == ["image", *annotators, *samples, "mean", "entropy"]
    assert titles[10:] == [""] * 10
    assert "mode of mean" in [axes.get_title() for axes in panel(num_classes=3)[0].axes]


def shown(figure: Figure, cell: int) -> np.ndarray:
    return np.asarray(figure.axes[cell].images[0].get_array())


def test_cells_hold_labels_samples_mean_and_entropy() -> None:
    figure, batch, prediction = panel()
    for annotator in range(3):
        assert np.array_equal(shown(figure, 1 + annotator), batch.labels[0, annotator])
    for sample in range(4):
        assert np.array_equal(shown(figure, 4 + sample), prediction.labels[0, sample])
    mean = prediction.labels[0].double().mean(0).numpy()
    assert np.allclose(shown(figure, 8), mean, atol=1e-6)
    entropy = -sum(np.where(p > 0, p * np.log2(np.maximum(p, 1e-9)), 0) for p in (mean, 1 - mean))
    assert np.allclose(shown(figure, 9), entropy, atol=1e-5)


def test_absent_annotator_leaves_its_cell_empty() -> None:
    figure, _, _ = panel(rows=2, annotators=3)
    empty = [cell for cell, axes in enumerate(figure.axes) if not axes.images]
    assert empty == [10 + 3]


def test_number_of_samples_is_limited() -> None:
    figure, _, _ = panel(samples=5, max_samples=2)
    assert [axes.get_title() for axes in figure.axes if "sample" in axes.get_title()] == ["sample 1", "sample 2"]


def test_image_of_one_value_renders() -> None:
    _, batch, prediction = panel(rows=1)
    figure = sample_panel(batch._replace(images=torch.full_like(batch.images, 0.5)), prediction)
    assert np.isfinite(shown(figure, 0)).all()
    assert decoded(figure).size > 0
