"""Mean IoU by hand and by the benchmark's own scripts, and the label files that an evaluation writes."""

import csv
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import one_hot

import ddpm_eval
from datasets import cityscapes
from datasets.loading import EvaluationBatch
from evaluation import Result, score
from evaluation.classes import ClassTable, LabelFiles
from evaluation.predictors import FusedPrediction
from evaluation.published import published_results
from evaluation.results import results_contents
from models import CCDM, SampleChunk
from tests import tiny
from tests.datasets.trees import write_cityscapes
from tests.evaluation.data import Scenes
from utils.errors import UserError
from utils.paths import safe_name

SIZE = (16, 32)
FULL_SIZE = (32, 64)
SCENES = ("frankfurt_000000_000294", "frankfurt_000001_000019", "lindau_000000_000019")


def score_maps(data: Any, maps: Callable[[int], Tensor], folder: Path | None = None) -> Result:
    """Score certain label maps, the same with one sample as with five."""

    def predict(batch: EvaluationBatch) -> FusedPrediction:
        fused = torch.stack([one_hot(maps(index), data.num_classes).movedim(-1, 0) for index in batch.indices.tolist()])
        return FusedPrediction([1, 5], fused.float()[:, None].expand(-1, 2, -1, -1, -1))

    files = None if folder is None else LabelFiles(folder, ClassTable.from_dataset(data))
    return score(predict, data, [0, 1], [1, 5], label_files=files)


def test_perfect_predictions_have_mean_iou_one() -> None:
    data = Scenes()
    result = score_maps(data, lambda index: torch.tensor(data.labels[index]))
    assert result.task == "segmentation"
    assert [(metric.name, n) for metric, n in result.metrics] == [("seconds", None), ("miou", 1), ("miou", 5)]
    assert result.mean("miou", 5) == 1


def test_classes_of_the_same_name_keep_their_own_numbers() -> None:
    class Namesakes(Scenes):
        class_names = ("road", "nothing", "road")

    data: Any = Namesakes()
    classes = ClassTable.from_dataset(data)
    assert classes.names == ["0 road", "nothing", "2 road"]
    result = score_maps(data, lambda index: torch.zeros(2, 2, dtype=torch.int64))
    rows = results_contents([result], classes, None, {})["results"][0]["metrics"]
    assert rows[-1]["classes"] == {"0 road": pytest.approx(3 / 7), "2 road": 0}


def test_mean_iou_is_that_of_one_matrix_over_the_split() -> None:
    result = score_maps(Scenes(), lambda index: torch.zeros(2, 2, dtype=torch.int64))
    # of a: 3 pixels hit, 4 wrongly called a; void counts nowhere. The mean over the images would be (2/3 + 1/4) / 4
    assert result.statistics("miou", 1).sum((0, 1)).tolist() == [[3, 0, 0], [0, 0, 0], [4, 0, 0]]
    assert result.mean("miou", 1) == pytest.approx(3 / 14)


def test_predictions_are_written_with_the_ids_and_colours_of_the_dataset(tmp_path: Path) -> None:
    score_maps(Scenes(), lambda index: torch.tensor([[0, 2], [2, 2 * index]]), tmp_path)
    ids = np.asarray(Image.open(tmp_path / "predictions" / "town" / "town_1_pred_labelIds.png"))
    assert (ids.dtype, ids.tolist()) == (np.uint8, [[7, 9], [9, 9]])
    colours = np.asarray(Image.open(tmp_path / "predictions_in_colour" / "town" / "town_0_pred_color.png"))
    assert colours.tolist() == [[[1, 2, 3], [4, 5, 6]], [[4, 5, 6], [1, 2, 3]]]


class Escaping(Scenes):
    """Scenes whose names lead out of a folder."""

    names = ("../../../x", "../../../y")

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {**super().__getitem__(index), "name": self.names[index]}


def test_predictions_stay_in_their_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    score_maps(Escaping(), lambda index: torch.zeros(2, 2, dtype=torch.int64), tmp_path / "run")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    assert len(list((tmp_path / "run").rglob("*.png"))) == 4
    monkeypatch.setattr(Escaping, "names", ("same", "same"))
    with pytest.raises(UserError, match="2 images have the name 'same'"):
        score_maps(Escaping(), lambda index: torch.zeros(2, 2, dtype=torch.int64), tmp_path)


def test_file_names_of_classes_are_safe_and_unique() -> None:
    classes = ClassTable.create(4, ["traffic light", "../x", "a", "A"])
    names = [classes.file_name(label) for label in range(4)]
    assert names == ["traffic_light", safe_name("../x"), "2_a", "3_A"]


def test_classes_without_names_ids_and_colours_get_default_ones() -> None:
    class Plain:
        num_classes, image_channels, void_class = 4, 1, 1

    classes = ClassTable.from_dataset(Plain())  # type: ignore[arg-type]
    assert (classes.names, classes.ids.tolist(), classes.evaluated) == (["0", "1", "2", "3"], [0, 1, 2, 3], [0, 2, 3])
    assert classes.colours[1].tolist() == [0, 0, 0]
    assert len({tuple(colour) for colour in classes.colours.tolist()}) == 4
    assert ClassTable.create(2).colours.tolist() == [[0, 0, 0], [255, 255, 255]]


def test_single_image_of_several_annotators_is_refused() -> None:
    class Several(Scenes):
        labels = Scenes.labels * 20

        def __getitem__(self, index: int) -> dict[str, Any]:
            item = super().__getitem__(index)
            return {**item, "labels": item["labels"].repeat(2 if index == 1 else 1, 1, 1)}

    with pytest.raises(UserError, match="town_1 has 2 label maps"):
        score_maps(Several(), lambda index: torch.zeros(2, 2, dtype=torch.int64))


@pytest.mark.parametrize(
    ("benchmark", "size", "with_encoder", "metric", "n", "mean"),
    [
        ("Cityscapes", (128, 256), False, "miou", 10, 0.562),
        ("Cityscapes", (256, 512), True, "miou", 10, 0.658),
        ("Cityscapes", (64, 128), False, "miou", 10, None),
        (None, (128, 256), False, "miou", 10, None),
        ("LIDCv1", (128, 128), False, "hm_iou", 16, 0.623),
        ("LIDCv2", (128, 128), False, "ged", 100, 0.210),
    ],
)
def test_published_results_are_those_of_benchmark_and_network(
    benchmark: str | None, size: tuple[int, int], with_encoder: bool, metric: str, n: int, mean: float | None
) -> None:
    published = published_results(benchmark, size, with_encoder)
    rows = [] if published is None else published["metrics"]
    assert published is None or (n in published["num_samples"] and published["name"].startswith("paper, "))
    found = [row["mean"] for row in rows if (row["metric"], row["num_samples"]) == (metric, n)]
    assert found == ([] if mean is None else [mean])


# The whole evaluation, on a small tree in the layout of Cityscapes.


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Scenes of squares of all ids, with void and classes that are not evaluated; "test" is all void."""
    folder = tmp_path_factory.mktemp("cityscapes")
    rng = np.random.default_rng(0)
    ids = {scene: np.kron(rng.integers(34, size=(8, 16)), np.ones((4, 4), dtype=int)) for scene in SCENES}
    write_cityscapes(folder, "val", ids)
    return write_cityscapes(folder, "test", {"berlin_000000_000019": np.full(FULL_SIZE, 3)})


@pytest.fixture(scope="module")
def checkpoint(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model for Cityscapes that was not trained."""
    settings = {"dataset_file": "datasets.cityscapes", "dataset_params": {"path": str(root), "size": list(SIZE)}}
    return tiny.save_model(tmp_path_factory.mktemp("checkpoint") / "model.pt", tiny.model(20, 3), settings=settings)


def evaluate(checkpoint: Path, output: Path, *changes: str) -> dict[str, Any]:
    """The results by their names."""
    ours = ("dataset_split=val", "num_samples=[1,3]", "batch_size=2", "n_validation_images=0", *changes)
    ddpm_eval.main(tiny.eval_argv(checkpoint, output, *ours))
    results = json.loads((output / "results.json").read_text(encoding="utf-8"))
    return {result["name"]: result for result in results["results"]}


def row_of(result: dict[str, Any], metric: str, n: int) -> dict[str, Any]:
    (found,) = (row for row in result["metrics"] if (row["metric"], row["num_samples"]) == (metric, n))
    return found


def official_scores(root: Path, predictions: Path) -> dict[str, Any]:
    """What the benchmark's own evaluation says of predictions as picture files."""
    official = pytest.importorskip(
        "cityscapesscripts.evaluation.evalPixelLevelSemanticLabeling", reason="cityscapesscripts is not installed"
    )
    args = official.args
    args.predictionPath, args.predictionWalk = str(predictions), None
    args.evalInstLevelScore, args.JSONOutput, args.quiet = False, False, True
    truths = sorted(str(path) for path in (root / "gtFine" / "val").glob("*/*_gtFine_labelIds.png"))
    found = [official.getPrediction(args, truth) for truth in truths]
    scores: dict[str, Any] = official.evaluateImgLists(found, truths, args)
    return scores


@pytest.mark.parametrize("strategy", ["confidence", "majority"])
def test_mean_iou_is_that_of_the_benchmarks_scripts(
    root: Path, checkpoint: Path, tmp_path: Path, strategy: str
) -> None:
    result = evaluate(checkpoint, tmp_path, f"evaluation_vote_strategy={strategy}")["model"]
    ours, theirs = row_of(result, "miou_original", 3), official_scores(root, tmp_path / "predictions")
    assert ours["mean"] == pytest.approx(theirs["averageScoreClasses"], abs=1e-6)
    assert ours["mean"] > 0
    for name, value in ours["classes"].items():
        assert value == pytest.approx(theirs["classScores"][name], abs=1e-6)


def test_results_hold_every_class_at_both_sizes(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result, names = evaluate(checkpoint, tmp_path)["model"], cityscapes.Cityscapes.class_names[:19]
    assert (result["num_images"], result["size"]) == (len(SCENES), list(SIZE))
    rows = [row_of(result, metric, n) for metric in ("miou", "miou_original") for n in (1, 3)]
    for row in rows:
        assert tuple(row["classes"]) == names
        assert row["mean"] == pytest.approx(np.mean(list(row["classes"].values())))
        assert row["low"] <= row["mean"] <= row["high"]
    with open(tmp_path / "results.csv", encoding="utf-8") as file:
        lines = [line for line in csv.DictReader(file) if line["metric"] != "seconds"]
    assert len(lines) == 4 * 20
    assert float(lines[0]["mean"]) == rows[0]["mean"]
    assert (lines[1]["class"], float(lines[1]["mean"])) == (names[0], rows[0]["classes"][names[0]])
    printed = [line.split() for line in capsys.readouterr().out.splitlines()]
    for name in names:
        assert [f"{100 * row['classes'][name]:.2f}" for row in rows] in [words[-4:] for words in printed]
    with open(tmp_path / "per_image.csv", encoding="utf-8") as file:
        assert 0 < float(next(csv.DictReader(file))["miou_original_3"]) < 1
    assert f"{100 * rows[3]['mean']:.2f} %" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_written_predictions_have_the_layout_and_size_of_the_annotations(checkpoint: Path, tmp_path: Path) -> None:
    evaluate(checkpoint, tmp_path)
    for folder, ending in (("predictions", "pred_labelIds"), ("predictions_in_colour", "pred_color")):
        files = sorted(path.relative_to(tmp_path / folder) for path in (tmp_path / folder).rglob("*.*"))
        assert files == [Path(scene.split("_")[0]) / f"{scene}_{ending}.png" for scene in SCENES]
        assert {Image.open(tmp_path / folder / file).size for file in files} == {FULL_SIZE[::-1]}


def test_predictions_of_another_seed_or_of_more_images_do_not_stay(checkpoint: Path, tmp_path: Path) -> None:
    def predictions() -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in (tmp_path / "predictions").rglob("*.png")}

    evaluate(checkpoint, tmp_path)
    first = predictions()
    evaluate(checkpoint, tmp_path, "seeds=1")
    second = predictions()
    evaluate(checkpoint, tmp_path)
    assert predictions() == first != second
    evaluate(checkpoint, tmp_path, "dataset_val_max_size=1")
    assert len(predictions()) == 1


def test_several_seeds_and_samplers_have_their_results(checkpoint: Path, tmp_path: Path) -> None:
    changes = ("seeds=[0,1]", "sweep.steps=[2]", "sweep.samplers=[ancestral,ddim]")
    results = evaluate(checkpoint, tmp_path / "both", *changes)
    assert list(results) == ["model", "ancestral 2", "ddim 2"]
    assert results["ddim 2"]["num_samples"] == [1]
    alone = [evaluate(checkpoint, tmp_path / str(seed), f"seeds={seed}")["model"] for seed in (0, 1)]
    means = [row_of(result, "miou_original", 3)["mean"] for result in alone]
    both = row_of(results["model"], "miou_original", 3)
    assert both["mean"] == pytest.approx(np.mean(means), abs=1e-3)
    assert both["std_over_seeds"] == pytest.approx(np.std(means, ddof=1), abs=1e-3)


def test_interrupted_evaluation_samples_only_what_is_missing(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = evaluate(checkpoint, tmp_path)
    (tmp_path / "predictions" / "lindau" / f"{SCENES[2]}_pred_labelIds.png").unlink()
    sampled: list[int] = []
    iter_samples = CCDM.iter_samples

    def counted(self: CCDM, images: Tensor, *args: Any, **kwargs: Any) -> Iterator[SampleChunk]:
        sampled.append(len(images))
        return iter_samples(self, images, *args, **kwargs)

    monkeypatch.setattr(CCDM, "iter_samples", counted)
    again = evaluate(checkpoint, tmp_path)
    assert sampled == [1]
    same = [[row for row in results["model"]["metrics"] if row["metric"] != "seconds"] for results in (again, whole)]
    assert same[0] == same[1]
    assert len(list((tmp_path / "predictions").rglob("*.png"))) == len(SCENES)
    evaluate(checkpoint, tmp_path, "evaluation_vote_strategy=majority")
    assert sampled == [1, 2, 1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("dataset_split=test", "berlin_000000_000019 has no annotations"),
        ("evaluation_vote_strategy=loudest", "choose from: confidence, majority"),
    ],
)
def test_what_cannot_be_evaluated_is_refused(checkpoint: Path, tmp_path: Path, change: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        ddpm_eval.main(tiny.eval_argv(checkpoint, tmp_path, "n_validation_images=0", change))
