"""The images of a report: which are chosen, and that they show what was scored."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from datasets.loading import evaluation_batches
from diffusion import SamplingConfig
from evaluation import ImageScores, Result
from evaluation.classes import ClassTable
from evaluation.examples import ranked, segmentation_images, trajectory
from evaluation.predictors import fused_label_map, fused_samples
from tests.evaluation.reports import Evaluate, Evaluated, Page, decoded, section_ids


def test_pictures_show_the_samples_that_were_scored(evaluated: Evaluated) -> None:
    shown, place = evaluated.contents["examples"][0], ranked(evaluated.results[0], 3)["best"][0]
    image = evaluated.results[0].images[place]
    assert (shown["name"], shown["scores"]["ged"]) == (image.name, image.values["ged_4"])
    assert f"{image.name} · GED4 {image.values['ged_4']:.4f} · HM-IoU4" in evaluated.page.text
    (batch,) = evaluation_batches(evaluated.data, [image.index], 1, workers=0)
    samples = evaluated.model.sample(batch.images, 4, SamplingConfig(steps=3)).labels[0]
    pictures = {attributes["alt"]: attributes for attributes in evaluated.page.all("img")}
    for number in range(4):
        pixels = decoded(pictures[f"sample {number + 1} of {image.name}"])
        assert np.array_equal(pixels[..., 0], samples[number] * 255)
    assert np.array_equal(decoded(pictures[f"annotator 1 of {image.name}"])[..., 1], batch.labels[0, 0] * 255)


def test_pictures_show_the_fused_prediction_that_was_scored(segmented: Evaluated) -> None:
    pictures = {attributes["alt"]: attributes for attributes in segmented.page.all("img")}
    colours = segmented.evaluation.classes.colours
    predict = fused_samples(segmented.model, [4], segmented.settings.sampling, 0, void=3)
    values = segmented.results[0].values("miou", 4)
    shown = {example["rank"]: example["scores"]["miou"] for example in segmented.contents["examples"]}
    assert (shown["best"], shown["median"], shown["worst"]) == tuple(sorted(values)[::-2])
    for example in segmented.contents["examples"]:
        (image,) = (image for image in segmented.results[0].images if image.name == example["name"])
        (batch,) = evaluation_batches(segmented.data, [image.index], 1, workers=0)
        predicted, truth = fused_label_map(predict(batch).maps[0, 0], (8, 16)), batch.labels[0, 0]
        assert np.array_equal(decoded(pictures[f"prediction of {image.name}"]), colours[predicted])
        assert np.array_equal(decoded(pictures[f"label map of {image.name}"]), colours[truth])
        right = (decoded(pictures[f"differences of {image.name}"]) == 255).all(-1)
        assert np.array_equal(right, predicted == truth)
        assert example["scores"]["accuracy"] == pytest.approx(right.sum() / int((truth != 3).sum()))
        assert f"{100 * example['scores']['accuracy']:.2f} % of the pixels correct" in segmented.page.text


def test_entropy_is_that_of_the_classes_without_void() -> None:
    fused = torch.tensor([[[0.25, 0.5]], [[0.25, 0.0]], [[-1.0, -1.0]]])  # half of both pixels was void
    classes = ClassTable.create(3, void=2)
    *_, differences, entropy = segmentation_images(fused, torch.tensor([[2, 1]]), classes)
    assert entropy.values is not None
    assert (entropy.values.tolist(), entropy.highest) == ([[1, 0]], 1)
    assert differences.pixels()[0].tolist() == [[150, 156, 163], [213, 94, 0]]


@pytest.mark.parametrize(("height", "shown"), [(300, ("200", "100")), (1, ("200", "1"))])
def test_absent_annotators_and_large_images(
    evaluated: Evaluated, tmp_path: Path, height: int, shown: tuple[str, str]
) -> None:
    Image.fromarray(np.zeros((height, 600, 3), np.uint8)).save(tmp_path / "large.png")
    example = evaluated.contents["examples"][0]
    panel = [{"title": "image", "file": "large.png"}, {"title": "annotator 1", "file": None}]
    evaluated.folder.joinpath("large.png").write_bytes((tmp_path / "large.png").read_bytes())
    page = Page(evaluated.render(examples=[{**example, "panel": panel, "trajectory": []}]))
    assert page.text.count("absent") == 1
    assert "process" not in section_ids(page)
    (size,) = [(a["width"], a["height"]) for a in page.all("img") if a["alt"].startswith("image of")]
    assert size == shown
    assert "cells wide" in [attributes["class"] for attributes in page.all("ul")]


@pytest.mark.parametrize(
    ("values", "number", "expected"),
    [
        ([5, 3, 1, 4, 2, 0, 6], 3, {"best": [5], "median": [1], "worst": [6]}),
        ([5, 3, 1, 4, 2, 0, 6], 6, {"best": [5, 2], "median": [4, 1], "worst": [6, 0]}),
        ([1, 0, 2], 1, {"best": [1], "median": [0], "worst": [2]}),
        ([1, 0], 6, {"best": [1, 0]}),
        ([1, 0], 3, {"best": [1], "worst": [0]}),
        ([1, float("nan")], 3, {"best": [0]}),
        ([1, 0], 0, {}),
    ],
)
def test_images_are_ranked_by_ged(values: list[float], number: int, expected: dict[str, list[int]]) -> None:
    images = [ImageScores(index, "", 0, (1, 1), {"ged_1": value}) for index, value in enumerate(values)]
    assert ranked(Result("distribution", [images], [1]), number) == expected


@pytest.mark.parametrize(
    ("steps", "times"),
    [(3, [50, 39, 27]), (1, [50]), (50, [50, 44, 38, 31, 25, 19, 12, 6])],
)
def test_trajectory_goes_from_noise_to_the_first_sample(evaluated_with: Evaluate, steps: int, times: list[int]) -> None:
    evaluation = evaluated_with(sampling=SamplingConfig(steps=steps), num_samples=1, n_validation_images=0).evaluation
    (batch,) = evaluation_batches(evaluation.data, [2], 1, workers=0)
    pictures = trajectory(evaluation, batch)
    assert [picture.title for picture in pictures] == ["image", *(f"t = {time}" for time in times), "sample 1"]
    chain = dict(evaluation.model.trajectory(batch.images, evaluation.sampling))
    for time, picture in zip([*times, 0], pictures[1:], strict=True):
        assert np.array_equal(picture.pixels()[..., 0], chain[time][0] * 255)
    assert np.array_equal(chain[0], evaluation.model.sample(batch.images, 1, evaluation.sampling).labels[0])
