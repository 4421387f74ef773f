"""Known causes of bad samples have the verdict that names them."""

from pathlib import Path

import pytest
import torch

from datasets import synthetic
from tests import tiny
from training import diagnose
from training.diagnose import Level, Report, Samples, compare_losses, verdicts
from utils.errors import UserError

RATERS = Samples(ged=0.0, diversity=0.5, empty=0.3, edges=0.02)
GOOD = Report(
    num_images=6,
    levels=[Level(5, 0.9, 0.01, 0.1), Level(40, 0.1, 0.1, 0.3), Level(50, 0.0, 0.2, 0.32)],
    frequencies_only=0.32,
    averaged=RATERS._replace(ged=0.3),
    raw=RATERS._replace(ged=0.31),
    annotations=RATERS,
    inputs={"train": (-1.0, 0.0, 1.0, 0.5), "val": (-1.0, 0.1, 1.0, 0.4)},
    losses=[(step, 1.0) for step in range(20)],
)


def with_network(*losses: float) -> Report:
    levels = [level._replace(network=loss) for level, loss in zip(GOOD.levels, losses, strict=True)]
    return GOOD._replace(levels=levels)


def test_a_good_run_has_no_verdict() -> None:
    assert list(verdicts(GOOD)) == []
    text = diagnose.as_text(GOOD)
    assert "of 6 validation images" in text
    assert text.endswith("- Nothing conspicuous.")


def test_a_classifier_has_no_noise_levels() -> None:
    classifier = GOOD._replace(levels=GOOD.levels[-1:])
    assert list(verdicts(classifier)) == []
    (verdict,) = verdicts(classifier._replace(averaged=RATERS._replace(edges=0.2)))
    assert "draws every pixel on its own" in verdict
    worse = classifier.levels[0]._replace(network=0.5)
    (verdict,) = verdicts(classifier._replace(levels=[worse]))
    assert verdict.endswith("worse than the class frequencies. Train longer.")


@pytest.mark.parametrize(
    ("report", "expected"),
    [
        (with_network(0.2, 0.4, 0.4), "does not use x_t"),
        (with_network(0.01, 0.3, 0.32), "does not use the image"),
        (with_network(0.01, 0.1, 0.5), "worse than the class frequencies"),
        (GOOD._replace(averaged=RATERS._replace(ged=0.4)), "averaged weights lag behind"),
        (GOOD._replace(averaged=RATERS._replace(edges=0.2)), "noisier than the annotations"),
        (GOOD._replace(averaged=RATERS._replace(empty=0.9)), "empty too often"),
        (GOOD._replace(averaged=RATERS._replace(diversity=0.1)), "hardly differ"),
        (GOOD._replace(inputs={**GOOD.inputs, "val": (-20.0, 2.0, 20.0, 8.0)}), "another range"),
        (GOOD._replace(inputs=dict.fromkeys(("train", "val"), (0.0, 99.0, 255.0, 40.0))), "image_mean and image_std"),
        (GOOD._replace(losses=[(step, 100.0 - step) for step in range(100)]), "still falling"),
    ],
)
def test_each_cause_has_its_verdict(report: Report, expected: str) -> None:
    (verdict,) = verdicts(report)
    assert expected in verdict


def test_losses_of_a_network_without_knowledge_are_those_of_a_uniform_prediction(data_folder: Path) -> None:
    model, data = tiny.model(), synthetic.get_dataset("val", str(data_folder), tiny.SIDE)
    torch.nn.init.zeros_(model.network.out[-1].weight)
    torch.nn.init.zeros_(model.network.out[-1].bias)
    levels, frequencies_only = compare_losses(model, data)
    assert [level.network for level in levels] == pytest.approx([0.6931] * len(levels), abs=1e-4)
    assert levels[-1].t == tiny.TIME_STEPS
    references = [level.without_image for level in levels]
    assert references == sorted(references)
    labels = torch.stack([data[index]["labels"][0] for index in range(len(data))]).double()
    share = labels.mean()
    expected = -float(share * share.log() + (1 - share) * (1 - share).log())
    assert frequencies_only == pytest.approx(expected, rel=1e-5)
    assert references[-1] <= frequencies_only


def test_a_run_that_has_learned_nothing_has_its_verdict(finished_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = sorted(finished_run.iterdir())
    diagnose.main([str(finished_run), "device=cpu"])
    printed = capsys.readouterr().out
    assert "The network does not use x_t yet" in printed
    assert "averaged weights" in printed
    assert "Training loss: " in printed
    assert sorted(finished_run.iterdir()) == files


@pytest.mark.parametrize("arguments", [[], ["{folder}"]])
def test_what_is_not_a_run_is_refused(arguments: list[str], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="folder of a run"):
        diagnose.main([argument.format(folder=tmp_path) for argument in arguments])
