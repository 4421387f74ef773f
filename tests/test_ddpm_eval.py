"""Evaluation: what it writes, and what it refuses."""

import json
import pickle
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import matplotlib.image
import pytest

import ddpm_eval
from checkpoints.files import load_checkpoint
from datasets import synthetic
from tests import tiny
from tests.checkpoints.test_files import TouchesAFile

WRITTEN = {".lock", "results.json", "results.csv", "per_image.csv", "report.html", "cache"}
METRICS = ["ged", "hm_iou", "diversity_samples", "diversity_labels", "brier", "ncc", "ece"]
PREDICTORS = ["model", "oracle", "majority vote", "always empty"]


def strict_json(path: Path) -> dict[str, Any]:
    def refuse(constant: str) -> NoReturn:
        raise AssertionError(f"{constant} is not JSON")

    contents: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)
    return contents


def evaluate(checkpoint: Path, output: Path, *changes: str) -> dict[str, Any]:
    ddpm_eval.main(tiny.eval_argv(checkpoint, output, *changes))
    return strict_json(output / "results.json")


def lines(results: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Every result by its name, its metrics by theirs, without the time."""
    return {
        line["name"]: {"num_images": line["num_images"]}
        | {row["metric"]: row for row in line["metrics"] if row["metric"] != "seconds"}
        for line in results["results"]
    }


@pytest.fixture
def results(finished_run: Path, tmp_path: Path) -> dict[str, Any]:
    return evaluate(finished_run / "best_ged.pt", tmp_path / "results")


def test_results_hold_scores_and_protocol(
    finished_run: Path, data_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = evaluate(finished_run / "best_ged.pt", tmp_path)
    printed = capsys.readouterr().out.splitlines()
    assert list(lines(results)) == PREDICTORS
    for name, line in lines(results).items():
        assert line["num_images"] == 4
        assert line["ged"]["num_samples"] == (4 if name in ("model", "oracle") else 1)
        assert line["ged"]["low"] <= line["ged"]["mean"] <= line["ged"]["high"]
        shown = next(text for text in printed if text.startswith(name))
        assert f"{line['ged']['mean']:.4f}" in shown
        assert f"{line['hm_iou']['mean']:.4f}" in shown
    assert set(METRICS) <= set(lines(results)["model"])
    assert results["settings"]["dataset_file"] == results["dataset_file"] == "datasets.synthetic"
    assert results["settings"]["dataset_params"] == {"path": str(data_folder), "side": tiny.SIDE}
    sampling = {"steps": 3, "sampler": "coherent", "eta": 0.0, "correlation_length": 24.0, "last_step": "argmax"}
    assert results["results"][0]["sampling"] == sampling
    checkpoint = load_checkpoint(finished_run / "best_ged.pt")
    assert results["checkpoint"]["step"] == checkpoint["step"]
    assert results["training_settings"] == checkpoint["settings"]


def test_pictures_are_written_unless_left_out(finished_run: Path, tmp_path: Path) -> None:
    evaluate(finished_run / "best_ged.pt", tmp_path / "with")
    assert {path.name for path in (tmp_path / "with").iterdir()} == WRITTEN | {"samples.png", "examples"}
    assert matplotlib.image.imread(tmp_path / "with" / "samples.png").shape[0] > 300
    evaluate(finished_run / "best_ged.pt", tmp_path / "without", "n_validation_images=0")
    assert {path.name for path in (tmp_path / "without").iterdir()} == WRITTEN
    evaluate(finished_run / "best_ged.pt", tmp_path / "with", "n_validation_images=0")
    assert {path.name for path in (tmp_path / "with").iterdir()} == WRITTEN | {"examples"}
    assert list((tmp_path / "with" / "examples").iterdir()) == []


def test_images_of_different_sizes_are_evaluated(tmp_path: Path, user_module: Callable[[str, str], None]) -> None:
    user_module("sizes", MODULE_WITH_SIZES)
    checkpoint = tiny.save_model(tmp_path / "model.pt")
    results = evaluate(checkpoint, tmp_path / "results", "dataset_file=sizes", "batch_size=1")
    assert lines(results)["model"]["num_images"] == 3
    assert (tmp_path / "results" / "samples.png").is_file()


MODULE_WITH_SIZES = """
import torch

class Sizes:
    num_classes, image_channels = 2, 1
    def __len__(self):
        return 3
    def __getitem__(self, index):
        size = 8 + 8 * index, 16
        labels = torch.ones(1 + index, *size, dtype=torch.uint8)
        return {"image": torch.randn(1, *size), "labels": labels, "name": str(index)}

def get_dataset(split):
    return Sizes()
"""


def test_results_are_the_same_again_and_with_worker_processes(
    results: dict[str, Any], finished_run: Path, tmp_path: Path
) -> None:
    again = evaluate(finished_run / "best_ged.pt", tmp_path / "again", "mp_loaders=2")
    assert lines(again) == lines(results)


def test_another_seed_changes_the_samples_and_not_the_baselines(
    results: dict[str, Any], finished_run: Path, tmp_path: Path
) -> None:
    one, other = lines(results), lines(evaluate(finished_run / "best_ged.pt", tmp_path / "other", "seeds=1"))
    assert {name for name in one if one[name] != other[name]} == {"model"}


def test_some_of_the_images_can_be_evaluated(finished_run: Path, tmp_path: Path) -> None:
    changes = ("dataset_val_max_size=2", "dataset_split=val")
    assert lines(evaluate(finished_run / "best_ged.pt", tmp_path, *changes))["model"]["num_images"] == 2


def test_results_are_next_to_the_newest_checkpoint_by_default(finished_run: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "best_ged.pt").write_bytes((finished_run / "best_ged.pt").read_bytes())
    argv = tiny.eval_argv(Path(f"{tmp_path}/*/best_ged.pt"), tmp_path, "evaluation_path=null", "n_validation_images=0")
    ddpm_eval.main(argv)
    assert strict_json(tmp_path / "run" / "evaluation_test" / "results.json")["checkpoint"]["step"] in (4, 8, 9)


def test_network_of_three_classes_is_evaluated_without_an_oracle(tmp_path: Path) -> None:
    path = tiny.write_hdf5(tmp_path / "data.hdf5", {"test": tiny.lesion_columns(3, (30, 21), num_classes=3)})
    settings = {"dataset_file": "datasets.lidc", "dataset_params": {"path": str(path)}}
    checkpoint = tiny.save_model(tmp_path / "three.pt", tiny.model(3), settings=settings)
    results = evaluate(checkpoint, tmp_path / "results")
    assert list(lines(results)) == ["model", "majority vote", "always empty"]
    assert (results["published"], results["dataset"]) == (None, "datasets.lidc, data.hdf5")


def test_published_numbers_are_shown_for_the_benchmark_s_own_file(tmp_path: Path) -> None:
    path = tiny.write_hdf5(tmp_path / "data.hdf5", {"test": tiny.lesion_columns(3)}, benchmark="LIDCv1")
    settings = {"dataset_file": "datasets.lidc", "dataset_params": {"path": str(path)}}
    results = evaluate(tiny.save_model(tmp_path / "model.pt", settings=settings), tmp_path / "results")
    assert [row["metric"] for row in results["published"]["metrics"]].count("ged") == 4


def test_dataset_of_a_checkpoint_is_imported_only_if_the_user_names_it(
    tmp_path: Path, user_module: Callable[[str, str], None]
) -> None:
    trap = tmp_path / "trap"
    user_module("sizes", f"open({str(trap)!r}, 'w').close()\n{MODULE_WITH_SIZES}")
    settings = {"dataset_file": "sizes", "dataset_params": {}}
    argv = tiny.eval_argv(tiny.save_model(tmp_path / "model.pt", settings=settings), tmp_path / "results")
    message = tiny.refusal(ddpm_eval.main, argv)
    assert f"python ddpm_eval.py params_eval.yml load_from={tmp_path / 'model.pt'} dataset_file=sizes" in message
    assert not trap.exists()
    ddpm_eval.main([*argv, "dataset_file=sizes", "batch_size=1", "dataset_val_max_size=1", "n_validation_images=0"])
    assert trap.exists()


def test_data_of_a_checkpoint_is_read_and_never_created(
    data_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(synthetic, "SPLIT_SIZES", tiny.SPLIT_SIZES)

    def argv_for(path: Path) -> list[str]:
        params = {"path": str(path), "side": tiny.SIDE, "create": True}
        settings = {"dataset_file": "datasets.synthetic", "dataset_params": params}
        checkpoint = tiny.save_model(tmp_path / "model.pt", settings=settings)
        return tiny.eval_argv(checkpoint, tmp_path / "results", "n_validation_images=0", "dataset_val_max_size=1")

    message = tiny.refusal(ddpm_eval.main, argv_for(tmp_path / "new"))
    assert (
        f"dataset_file=datasets.synthetic 'dataset_params={{create: true, path: {tmp_path / 'new'}, side: 8}}'"
        in message
    )
    assert {path.name for path in tmp_path.iterdir()} == {"model.pt"}
    ddpm_eval.main(argv_for(data_folder))
    assert str(data_folder) in capsys.readouterr().out
    command = shlex.split(message[message.index("python ddpm_eval.py") :])
    ddpm_eval.main([*argv_for(tmp_path / "new"), *command[4:]])
    assert [path.suffix for path in (tmp_path / "new").iterdir()] == [".hdf5"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["num_sampels=3"], "did you mean `num_samples`"),
        (["num_samples=lots"], "`num_samples.0` should be a valid integer"),
        (["batch_size=0"], "`batch_size` should be greater than or equal to 1"),
        (["sampling.sampler=euler"], "choose from: ancestral, coherent, ddim"),
        (["sweep.samplers=euler"], "choose from: ancestral, coherent, ddim"),
        (["sampling.steps=51"], "51 sampling steps requested, but the process has 50"),
        (["sweep.steps=[3,51]"], "51 sampling steps requested, but the process has 50"),
        (["dataset_split=holdout"], "no split 'holdout'; it has: test, train, val"),
        (["dataset_file=no_such_module"], "no module no_such_module"),
        (["load_from=${NO_SUCH_VARIABLE}/x.pt"], "NO_SUCH_VARIABLE"),
        (["load_from=nowhere/*.pt"], "no checkpoint matches nowhere/*.pt"),
        (["device=gpu"], "'gpu' is not a device"),
    ],
)
def test_bad_settings_are_refused_before_anything_is_written(
    finished_run: Path, tmp_path: Path, changes: list[str], message: str
) -> None:
    argv = tiny.eval_argv(finished_run / "last.pt", tmp_path / "results", *changes)
    assert message in tiny.refusal(ddpm_eval.main, argv)
    assert list(tmp_path.iterdir()) == []


def test_folder_that_cannot_be_made_is_refused_by_its_setting(finished_run: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    message = tiny.refusal(ddpm_eval.main, tiny.eval_argv(finished_run / "last.pt", tmp_path / "file" / "results"))
    assert "file/results cannot be made" in message
    assert "evaluation_path" in message


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("missing", "there is no checkpoint"),
        ("truncated", "damaged or truncated"),
        ("other data", "num_classes 2, but the checkpoint has 3"),
    ],
)
def test_checkpoint_that_does_not_fit_is_refused(finished_run: Path, tmp_path: Path, kind: str, message: str) -> None:
    path = tmp_path / "checkpoint.pt"
    if kind == "truncated":
        path.write_bytes((finished_run / "last.pt").read_bytes()[:5000])
    elif kind == "other data":
        settings = load_checkpoint(finished_run / "last.pt")["settings"]
        tiny.save_model(path, tiny.model(num_classes=3), settings=settings)
    assert message in tiny.refusal(ddpm_eval.main, tiny.eval_argv(path, tmp_path / "results"))
    assert not (tmp_path / "results").exists()


def test_script_ends_with_a_message_and_status_2(tmp_path: Path) -> None:
    path, trap = tmp_path / "checkpoint.pt", tmp_path / "trap"
    path.write_bytes(pickle.dumps(TouchesAFile(trap), protocol=2))
    command = [sys.executable, str(tiny.ROOT / "ddpm_eval.py"), *tiny.eval_argv(path, tmp_path / "results")]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert ended.returncode == 2
    assert ended.stderr.splitlines()[-1].startswith(f"error: {path} cannot be read safely")
    assert "Traceback" not in ended.stderr
    assert not trap.exists()
    assert not (tmp_path / "results").exists()
