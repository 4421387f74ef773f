"""Mean IoU by hand and by the benchmark's own scripts, the files that an evaluation leaves, and what it refuses."""

import csv
import json
import math
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
from checkpoints.files import save_checkpoint
from checkpoints.model import to_config_dict
from datasets import cityscapes
from datasets.loading import EvaluationBatch
from evaluation.cache import RowStore
from evaluation.classes import Classes
from evaluation.label_files import LabelFiles
from evaluation.segmentation import SegmentationEntry, bootstrap_miou, compare
from evaluation.segmentation_results import published
from metrics import mean_iou
from models import CCDM, SampleChunk
from tests import tiny
from tests.datasets.trees import write_cityscapes
from utils.errors import UserError
from utils.schema import EvalSettings, Sampling, VoteStrategy

SIZE = (16, 32)
FULL_SIZE = (32, 64)
SCENES = ("frankfurt_000000_000294", "frankfurt_000001_000019", "lindau_000000_000019")


class Scenes:
    """Two images of 2 x 2 pixels and the classes a and b, between which void stands."""

    num_classes, image_channels, void_class = 3, 1, 1
    class_names, class_ids, class_colours = ("a", "nothing", "b"), (7, 0, 9), ((1, 2, 3), (0, 0, 0), (4, 5, 6))
    labels = (((0, 0), (2, 1)), ((2, 2), (2, 0)))

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> dict[str, Any]:
        labels = torch.tensor(self.labels[index], dtype=torch.uint8)[None]
        return {"image": torch.zeros(1, 2, 2), "labels": labels, "name": f"town_{index}"}


def certain_of(maps: Callable[[int], Tensor]) -> Callable[[EvaluationBatch], Tensor]:
    """A fuser that gives one map of two classes for each index, and the same for each of two numbers of samples."""

    def predict(batch: EvaluationBatch) -> Tensor:
        fused = torch.stack([one_hot(maps(index), 2).movedim(-1, 0).float() for index in batch.indices.tolist()])
        return fused[:, None].expand(-1, 2, -1, -1, -1)

    return predict


def compared(data: Scenes, maps: Callable[[int], Tensor], folder: Path | None = None) -> SegmentationEntry:
    files = None if folder is None else LabelFiles(folder, Classes.of(data))
    rows = compare(certain_of(maps), data, EvalSettings(), [1, 5], RowStore(), files)
    return SegmentationEntry("model", "model", Sampling(), [1, 5], [rows])


def test_perfect_predictions_have_mean_iou_one() -> None:
    data = Scenes()
    entry = compared(data, lambda index: torch.tensor(data.labels[index]) // 2)
    assert entry.sizes == ["network"]
    assert entry.mean_iou("network", 5).mean == 1


def test_mean_iou_is_that_of_one_matrix_over_the_split() -> None:
    entry = compared(Scenes(), lambda index: torch.zeros(2, 2, dtype=torch.int64))
    # of a: 3 pixels hit, 4 wrongly called a; void counts nowhere. The mean over the images would be (2/3 + 1/4) / 4
    assert entry.confusions("network", 1).sum(1).tolist() == [[[3, 0], [4, 0]]]
    assert entry.iou("network", 1).tolist() == [3 / 7, 0]
    assert entry.mean_iou("network", 1).mean == pytest.approx(3 / 14)


def test_predictions_are_written_with_the_ids_and_colours_of_the_data_set(tmp_path: Path) -> None:
    compared(Scenes(), lambda index: torch.tensor([[0, 1], [1, index]]), tmp_path)
    ids = np.asarray(Image.open(tmp_path / "predictions" / "town" / "town_1_pred_labelIds.png"))
    assert (ids.dtype, ids.tolist()) == (np.uint8, [[7, 9], [9, 9]])
    colours = np.asarray(Image.open(tmp_path / "predictions_in_colour" / "town" / "town_0_pred_color.png"))
    assert colours.tolist() == [[[1, 2, 3], [4, 5, 6]], [[4, 5, 6], [1, 2, 3]]]


def test_data_without_names_ids_and_colours_are_told_by_their_numbers() -> None:
    class Plain:
        num_classes, image_channels, void_class = 3, 1, 0
        __len__, __getitem__ = Scenes.__len__, Scenes.__getitem__

    classes = Classes.of(Plain())  # type: ignore[arg-type]
    assert (classes.names, classes.ids.tolist(), classes.colours) == (["1", "2"], [1, 2], None)
    assert classes.positions(torch.tensor([0, 1, 2])).tolist() == [2, 0, 1]


def test_interval_covers_the_mean_and_averages_over_seeds() -> None:
    matrices = torch.randint(20, (2, 40, 3, 3), generator=torch.Generator().manual_seed(0))
    mean, low, high = bootstrap_miou(matrices, list(range(40)))
    assert mean == pytest.approx(np.mean([float(mean_iou(matrix)) for matrix in matrices.sum(1)]))
    assert low < mean < high
    assert high - low < 0.1
    same = bootstrap_miou(matrices.repeat_interleave(2, 1), [group for group in range(40) for _ in range(2)])
    assert same == pytest.approx((mean, low, high))  # twins of one group tell nothing new
    assert math.isnan(bootstrap_miou(matrices, [0] * 40).low)


def test_image_of_several_annotators_is_refused() -> None:
    class Several(Scenes):
        def __getitem__(self, index: int) -> dict[str, Any]:
            item = super().__getitem__(index)
            return {**item, "labels": item["labels"].repeat(1 + index, 1, 1)}

    with pytest.raises(UserError, match="town_1 has 2 label maps"):
        compared(Several(), lambda index: torch.zeros(2, 2, dtype=torch.int64))


@pytest.mark.parametrize(
    ("dataset_file", "size", "with_dino", "of_ten"),
    [
        ("datasets.cityscapes", (128, 256), False, 56.2),
        ("datasets.cityscapes", (256, 512), True, 65.8),
        ("datasets.cityscapes", (64, 128), False, None),
        ("my.streets", (128, 256), False, None),
    ],
)
def test_papers_numbers_are_those_of_the_network(
    dataset_file: str, size: tuple[int, int], with_dino: bool, of_ten: float | None
) -> None:
    assert published(dataset_file, size, with_dino).get(10) == of_ten


# The whole evaluation, on a small tree in the layout of Cityscapes.


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Scenes of squares of all ids, void and classes that are not evaluated among them; "test" is all void."""
    folder = tmp_path_factory.mktemp("cityscapes")
    rng = np.random.default_rng(0)
    ids = {scene: np.kron(rng.integers(34, size=(8, 16)), np.ones((4, 4), dtype=int)) for scene in SCENES}
    write_cityscapes(folder, "val", ids)
    return write_cityscapes(folder, "test", {"berlin_000000_000019": np.full(FULL_SIZE, 3)})


@pytest.fixture(scope="module")
def checkpoint(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of Cityscapes that was not trained."""
    weights = tiny.model(20, 3).state_dict()
    trained_on = {"dataset_file": "datasets.cityscapes", "dataset_params": {"path": str(root), "size": list(SIZE)}}
    shapes = to_config_dict(tiny.network_shape(20, 3), tiny.PROCESS)
    path = tmp_path_factory.mktemp("checkpoint") / "model.pt"
    save_checkpoint(path, {"settings": trained_on, **shapes, "model": weights, "average": weights, "step": 0})
    return path


def evaluate(checkpoint: Path, output: Path, *changes: str) -> dict[str, Any]:
    """The lines of the results by their names."""
    ours = ("dataset_split=val", "evaluations=[1,3]", "batch_size=2", "n_validation_images=0", *changes)
    ddpm_eval.main(tiny.eval_argv(checkpoint, output, *ours))
    results = json.loads((output / "results.json").read_text(encoding="utf-8"))
    return {line["name"]: line for line in results["results"]}


def measure(line: dict[str, Any], size: str, count: int) -> dict[str, Any]:
    (found,) = (m for m in line["measures"] if (m["size"], m["num_samples"]) == (size, count))
    return found


def official_scores(root: Path, predictions: Path) -> dict[str, Any]:
    """What the benchmark's own evaluation says of pictures of predictions."""
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
    root: Path, checkpoint: Path, tmp_path: Path, strategy: VoteStrategy
) -> None:
    line = evaluate(checkpoint, tmp_path, f"evaluation_vote_strategy={strategy}")["model"]
    ours, theirs = measure(line, "original", 3), official_scores(root, tmp_path / "predictions")
    assert ours["mean_iou"]["mean"] == pytest.approx(theirs["averageScoreClasses"], abs=1e-6)
    assert ours["mean_iou"]["mean"] > 0
    for name, value in ours["iou"].items():
        assert value == pytest.approx(theirs["classScores"][name], abs=1e-6)


def test_results_hold_every_class_at_both_sizes(checkpoint: Path, tmp_path: Path) -> None:
    line = evaluate(checkpoint, tmp_path)["model"]
    assert line["num_images"] == len(SCENES)
    assert line["network_size"] == list(SIZE)
    keys = [(m["size"], m["num_samples"]) for m in line["measures"]]
    assert keys == [("network", 1), ("network", 3), ("original", 1), ("original", 3)]
    for m in line["measures"]:
        assert list(m["iou"]) == list(cityscapes.Cityscapes.class_names[:19])
        assert m["mean_iou"]["mean"] == pytest.approx(np.mean(list(m["iou"].values())))
        assert m["mean_iou"]["low"] <= m["mean_iou"]["mean"] <= m["mean_iou"]["high"]
    with open(tmp_path / "results.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 4 * 20
    assert float(rows[0]["iou"]) == line["measures"][0]["mean_iou"]["mean"]
    shown = f"{100 * measure(line, 'original', 3)['mean_iou']['mean']:.2f} %"
    assert shown in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_table_has_a_line_for_every_class(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = evaluate(checkpoint, tmp_path)["model"]
    printed = {text[:22].strip(): text[22:].split() for text in capsys.readouterr().out.splitlines()}
    assert printed["IoU in percent at"] == ["16x32", "16x32", "original", "original"]
    for name in cityscapes.Cityscapes.class_names[:19]:
        assert printed[name] == [f"{100 * m['iou'][name]:.2f}" for m in line["measures"]]
    assert printed["mean"] == [f"{100 * m['mean_iou']['mean']:.2f}" for m in line["measures"]]


def test_written_predictions_have_the_layout_and_size_of_the_annotations(checkpoint: Path, tmp_path: Path) -> None:
    evaluate(checkpoint, tmp_path)
    for folder, ending in (("predictions", "pred_labelIds"), ("predictions_in_colour", "pred_color")):
        files = sorted(path.relative_to(tmp_path / folder) for path in (tmp_path / folder).rglob("*.*"))
        assert files == [Path(scene.split("_")[0]) / f"{scene}_{ending}.png" for scene in SCENES]
        assert {Image.open(tmp_path / folder / file).size for file in files} == {FULL_SIZE[::-1]}


def test_several_seeds_and_other_samplers_get_their_lines(checkpoint: Path, tmp_path: Path) -> None:
    changes = ("seeds=[0,1]", "sampling_steps=[2]", "samplers=[ancestral,ddim]")
    lines = evaluate(checkpoint, tmp_path / "both", *changes)
    assert list(lines) == ["model", "ancestral 2", "ddim 2"]
    assert [m["num_samples"] for m in lines["ddim 2"]["measures"]] == [1, 1]
    alone = [evaluate(checkpoint, tmp_path / str(seed), f"seeds={seed}")["model"] for seed in (0, 1)]
    means = [measure(line, "original", 3)["mean_iou"]["mean"] for line in alone]
    both = measure(lines["model"], "original", 3)
    assert both["mean_iou"]["mean"] == pytest.approx(np.mean(means), abs=1e-3)
    assert both["standard_deviation_over_seeds"] == pytest.approx(np.std(means, ddof=1), abs=1e-3)


def test_interrupted_evaluation_draws_only_what_is_missing(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = evaluate(checkpoint, tmp_path)
    (tmp_path / "predictions" / "lindau" / f"{SCENES[2]}_pred_labelIds.png").unlink()
    drawn: list[int] = []
    packs = CCDM.packs

    def counted(self: CCDM, images: Tensor, *args: Any, **kwargs: Any) -> Iterator[SampleChunk]:
        drawn.append(len(images))
        return packs(self, images, *args, **kwargs)

    monkeypatch.setattr(CCDM, "packs", counted)
    again = evaluate(checkpoint, tmp_path)
    assert drawn == [1]
    assert again["model"]["measures"] == whole["model"]["measures"]
    assert len(list((tmp_path / "predictions").rglob("*.png"))) == len(SCENES)
    evaluate(checkpoint, tmp_path, "evaluation_vote_strategy=majority")
    assert drawn == [1, 2, 1]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (("dataset_split=test",), "berlin_000000_000019 has no annotations"),
        (("evaluations=[0,5]",), "`evaluations.0` should be greater than or equal to 1"),
        (("evaluation_vote_strategy=loudest",), "'confidence' or 'majority'"),
        (("dataset_file=datasets.synthetic", "dataset_split=val"), "num_classes 2, but the checkpoint has 20"),
    ],
)
def test_what_cannot_be_evaluated_is_refused(
    checkpoint: Path, data_folder: Path, tmp_path: Path, changes: tuple[str, ...], said: str
) -> None:
    if "dataset_file=datasets.synthetic" in changes:
        changes = (*changes, f"dataset_params={{path: '{data_folder}', side: {tiny.SIDE}}}")
    with pytest.raises(UserError, match=said):
        ddpm_eval.main(tiny.eval_argv(checkpoint, tmp_path, "n_validation_images=0", *changes))
