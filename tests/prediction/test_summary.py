"""What is computed from the samples of an image: areas, majority, entropy, pictures, and the panel."""

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from checkpoints.preprocessing import Preprocessing
from datasets.cityscapes import Cityscapes
from evaluation.classes import ClassTable
from metrics import label_frequencies
from models import Samples
from prediction import panel
from prediction.outputs import write_outputs
from prediction.summary import Summary, read_summary, summary_csv, summary_rows

LABELS = torch.tensor([[[0, 1, 1], [0, 0, 1]], [[0, 1, 0], [0, 0, 0]], [[0, 1, 1], [0, 0, 0]]], dtype=torch.uint8)
TWO = ClassTable.create(2)


def summary_of(labels: Tensor) -> Summary:
    return Summary(labels, label_frequencies(labels[None], 2)[0])


def sampled(num_classes: int = 2, number: int = 4, size: tuple[int, int] = (8, 12)) -> tuple[Tensor, Samples]:
    """An image of noise, and random samples."""
    rng = torch.Generator().manual_seed(0)
    labels = torch.randint(num_classes, (1, number, *size), generator=rng).to(torch.uint8)
    return torch.randn(1, 1, *size, generator=rng), Samples(labels, label_frequencies(labels, num_classes).float())


def test_areas_and_their_spread_are_those_of_the_samples() -> None:
    summary = summary_of(LABELS)
    (one,) = summary.statistics(TWO)["classes"]
    assert one["pixels"] == {"mean": 2, "std": 1, "min": 1, "max": 3}
    assert one["fraction"]["mean"] == pytest.approx(2 / 6, abs=1e-6)
    assert one["pixels_of_each_sample"] == [3, 1, 2]
    assert one["samples_with_class"] == 3
    assert summary.majority().tolist() == [[0, 1, 1], [0, 0, 0]]


def test_single_sample_has_no_spread() -> None:
    summary = summary_of(LABELS[:1])
    assert summary.statistics(TWO)["classes"][0]["pixels"]["std"] is None
    assert summary.entropy.max() == 0


def test_entropy_is_in_bits() -> None:
    probabilities = torch.tensor([[[0.5, 1.0, 0.25]], [[0.5, 0.0, 0.75]]])
    entropy = Summary(LABELS[:, :1], probabilities).entropy
    assert torch.allclose(entropy, torch.tensor([[1.0, 0.0, 0.811278]]), atol=1e-6)


def test_void_is_excluded_from_majority_and_areas() -> None:
    classes = ClassTable.create(2, ["road", "void"], void=1)
    assert summary_of(LABELS).majority(classes.void).max() == 0
    assert [one["name"] for one in summary_of(LABELS).statistics(classes)["classes"]] == ["road"]


def test_summary_file_has_a_line_for_every_image_and_class() -> None:
    _, samples = sampled(num_classes=4)
    statistics = Summary.from_samples(samples).statistics(ClassTable.create(4))
    rows = [summary_rows({"image": name, "file": f"{name}, a.png", **statistics}) for name in ("x", "y")]
    text = summary_csv(rows[0] + rows[1])
    lines = list(csv.DictReader(io.StringIO(text)))
    assert [(line["image"], line["class"]) for line in lines] == [(name, c) for name in "xy" for c in "123"]
    assert lines[0]["file"] == "x, a.png"
    assert float(lines[2]["pixels_mean"]) == pytest.approx(float((samples.labels == 3).sum()) / 4)


def test_summary_is_read_as_written_and_its_cells_are_harmless(tmp_path: Path) -> None:
    _, samples = sampled()
    statistics = Summary.from_samples(samples).statistics(TWO)
    rows = summary_rows({"image": "=1+1", "file": "\x1b[31m.png", **statistics})
    assert (rows[0][0], rows[0][1]) == ("'=1+1", "\ufffd[31m.png")
    (tmp_path / "summary.csv").write_text(summary_csv(rows), encoding="utf-8")
    assert read_summary(tmp_path / "summary.csv") == rows
    (tmp_path / "summary.csv").write_text(f"{'x' * 200_000}\n")
    assert read_summary(tmp_path / "summary.csv") == []
    (tmp_path / "summary.csv").write_text("other,columns\n1,2\n")
    assert read_summary(tmp_path / "summary.csv") == read_summary(tmp_path / "none.csv") == []


def test_large_images_are_drawn_from_fewer_pixels() -> None:
    figure = panel(*sampled(number=2, size=(1300, 1201)))
    assert max(max(image.get_array().shape) for axes in figure.axes for image in axes.images) <= 601


def test_files_contain_the_samples(tmp_path: Path) -> None:
    image, samples = sampled(num_classes=20, number=3)
    names = Cityscapes.class_names
    written = write_outputs(
        tmp_path, image, samples, ClassTable.create(20, names, Cityscapes.class_colours, 19), {"seed": 5}
    )
    with np.load(tmp_path / "samples.npz") as arrays:
        assert np.array_equal(arrays["samples"], samples.labels[0])
        assert np.array_equal(arrays["probabilities"], samples.probabilities[0])
        assert (arrays["entropy"].shape, arrays["entropy"].dtype) == ((8, 12), np.float32)
    with Image.open(tmp_path / "samples" / "02.png") as picture:
        assert picture.mode == "P"
        assert np.array_equal(np.asarray(picture), samples.labels[0, 1])
        colours = np.asarray(picture.convert("RGB"))
    assert np.array_equal(colours, np.array(Cityscapes.class_colours)[samples.labels[0, 1]])
    with Image.open(tmp_path / "probability_traffic_light.png") as picture:
        light = samples.probabilities[0, names.index("traffic light")]
        assert np.allclose(np.asarray(picture) / 255, light, atol=0.5 / 255)
    assert not (tmp_path / "probability_void.png").exists()
    areas = json.loads((tmp_path / "areas.json").read_text())
    assert areas == written
    assert (areas["seed"], areas["num_samples"], len(areas["classes"])) == (5, 3, 19)
    assert not list(tmp_path.rglob("*.tmp"))


def titles(figure: Figure) -> list[str]:
    return [axes.get_title() for axes in figure.axes if axes.get_visible() and axes.get_title()]


def test_panel_of_two_classes_has_outlines_and_mean_probability() -> None:
    top = ["image", "outlines of 12 samples", "majority", "mean probability", "entropy in bits"]
    assert titles(panel(*sampled(number=12))) == [*top, *(f"sample {k}" for k in range(1, 11))]
    assert titles(panel(*sampled(number=2), max_samples=1)) == [top[0], "outlines of 2 samples", *top[2:], "sample 1"]


def test_panel_of_more_classes_has_a_legend() -> None:
    names = [f"class {k} $\\x" for k in range(5)]
    figure = panel(*sampled(num_classes=5), Preprocessing(image_mean=[0.5], image_std=[0.5], class_names=names))
    assert titles(figure)[:4] == ["image", "majority on image", "majority", "entropy in bits"]
    (legend,) = (legend for axes in figure.axes if (legend := axes.get_legend()) is not None)
    assert {text.get_text() for text in legend.get_texts()} <= set(names)
    assert figure._repr_png_()


@pytest.mark.parametrize("size", [(1, 1), (4, 90), (90, 4)])
@pytest.mark.parametrize("label", [0, 1])
def test_panel_is_displayed_for_any_shape_and_uniform_samples(size: tuple[int, int], label: int) -> None:
    image, samples = sampled(size=size)
    samples = samples._replace(labels=torch.full_like(samples.labels, label))
    assert panel(image, samples)._repr_png_().startswith(b"\x89PNG")
