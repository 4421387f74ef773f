"""Evaluation: what it writes, and what it refuses."""

import json
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any, NoReturn

import matplotlib.image
import pytest
import torch

import ddpm_eval
from checkpoints.files import FORMAT_VERSION, load_checkpoint, save_checkpoint
from checkpoints.model import to_config_dict
from tests import tiny
from tests.checkpoints.test_files import TouchesAFile

WRITTEN = {".lock", "results.json", "results.csv", "per_image.csv", "report.html", "rows"}
MEASURES = ["ged", "hm_iou", "diversity_samples", "diversity_labels", "brier", "ncc"]
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
    """Every line of the results by its name; the measures by theirs."""
    return {
        line["name"]: {
            "num_images": line["num_images"],
            "ece": line["expected_calibration_error"],
            **{cell.pop("measure"): cell for cell in map(dict, line["measures"])},
        }
        for line in results["results"]
    }


@pytest.fixture
def results(finished_run: Path, tmp_path: Path) -> dict[str, Any]:
    return evaluate(finished_run / "best_ged.pt", tmp_path / "results")


def test_results_hold_scores_and_protocol(results: dict[str, Any], finished_run: Path) -> None:
    assert list(lines(results)) == PREDICTORS
    for name, line in lines(results).items():
        assert line["num_images"] == 4
        assert line["ged"]["num_samples"] == (4 if name in ("model", "oracle") else 1)
        for measure in MEASURES:
            assert line[measure]["low"] <= line[measure]["mean"] <= line[measure]["high"]
    assert results["settings"]["dataset_split"] == "test"
    assert results["settings"]["sampling"] == {"steps": 3, "sampler": "ancestral", "eta": 0.0, "last_step": "argmax"}
    checkpoint = load_checkpoint(finished_run / "best_ged.pt")
    assert results["checkpoint"]["step"] == checkpoint["step"]
    assert results["training_settings"] == checkpoint["settings"]


def test_table_is_printed(finished_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = evaluate(finished_run / "best_ged.pt", tmp_path)
    out = capsys.readouterr().out
    for name in PREDICTORS:
        (line,) = (line for line in out.splitlines() if line.startswith(name))
        assert f"{lines(results)[name]['ged']['mean']:.4f}" in line
        assert f"{lines(results)[name]['hm_iou']['mean']:.4f}" in line


def test_picture_is_drawn(finished_run: Path, tmp_path: Path) -> None:
    evaluate(finished_run / "best_ged.pt", tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == WRITTEN | {"samples.png"}
    assert matplotlib.image.imread(tmp_path / "samples.png").shape[0] > 300


def test_picture_can_be_left_out(finished_run: Path, tmp_path: Path) -> None:
    evaluate(finished_run / "best_ged.pt", tmp_path, "n_validation_images=0")
    assert {path.name for path in tmp_path.iterdir()} == WRITTEN


def test_results_are_the_same_again_and_with_worker_processes(
    results: dict[str, Any], finished_run: Path, tmp_path: Path
) -> None:
    again = evaluate(finished_run / "best_ged.pt", tmp_path / "again", "mp_loaders=2")
    assert lines(again) == lines(results)


@pytest.mark.parametrize("changes", [["batch_size=1"], ["batch_size=3", "max_batch_size=2"]])
def test_results_do_not_depend_on_the_batch(
    results: dict[str, Any], finished_run: Path, tmp_path: Path, changes: list[str]
) -> None:
    other = lines(evaluate(finished_run / "best_ged.pt", tmp_path / "other", *changes))
    for name, row in lines(results).items():
        for metric in MEASURES:
            assert other[name][metric]["mean"] == pytest.approx(row[metric]["mean"], abs=1e-3)


def test_another_seed_changes_what_is_drawn_and_not_the_baselines(
    results: dict[str, Any], finished_run: Path, tmp_path: Path
) -> None:
    one, other = lines(results), lines(evaluate(finished_run / "best_ged.pt", tmp_path / "other", "seeds=1"))
    assert {name for name in one if one[name] != other[name]} == {"model"}


def test_subset_of_the_images_can_be_evaluated(finished_run: Path, tmp_path: Path) -> None:
    results = evaluate(finished_run / "best_ged.pt", tmp_path, "dataset_val_max_size=2", "dataset_split=val")
    assert lines(results)["model"]["num_images"] == 2


def test_results_of_a_single_image_are_strict_json_too(finished_run: Path, tmp_path: Path) -> None:
    results = evaluate(finished_run / "best_ged.pt", tmp_path, "dataset_val_max_size=1")
    assert lines(results)["model"]["ged"]["mean"] >= 0


def test_results_lie_beside_the_newest_checkpoint_by_default(finished_run: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "best_ged.pt").write_bytes((finished_run / "best_ged.pt").read_bytes())
    ddpm_eval.main([*tiny.eval_argv(Path(f"{tmp_path}/*/best_ged.pt"), tmp_path), "evaluation_path=null"])
    assert strict_json(tmp_path / "run" / "evaluation_test" / "results.json")["checkpoint"]["step"] in (4, 8, 9)


def test_network_of_any_number_of_classes_is_evaluated_without_an_oracle(tmp_path: Path) -> None:
    path = tiny.write_hdf5(tmp_path / "data.hdf5", {"test": tiny.lesion_columns(3, (30, 21), num_classes=3)})
    checkpoint = of_model(tmp_path / "three.pt", "datasets.lidc", {"path": str(path)}, num_classes=3)
    results = evaluate(checkpoint, tmp_path / "results")
    assert list(lines(results)) == ["model", "majority vote", "always empty"]


def of_model(path: Path, dataset_file: str, dataset_params: dict[str, Any], num_classes: int = 2) -> Path:
    """A checkpoint of a model that was not trained."""
    weights = tiny.model(num_classes).state_dict()
    settings = {"dataset_file": dataset_file, "dataset_params": dataset_params}
    shapes = to_config_dict(tiny.network_shape(num_classes), tiny.PROCESS)
    save_checkpoint(path, {"settings": settings, **shapes, "model": weights, "average": weights, "step": 0})
    return path


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (["evaluatons=3"], "did you mean `evaluations`"),
        (["evaluations=lots"], "`evaluations.0` should be a valid integer"),
        (["batch_size=0"], "`batch_size` should be greater than or equal to 1"),
        (["sampling.sampler=euler"], "'ancestral' or 'ddim'"),
        (["sampling.steps=51"], "51 sampling steps asked for; the model has 50 time steps"),
        (["dataset_split=holdout"], "no split 'holdout'; it has: test, train, val"),
        (["dataset_file=no_such_module"], "no module no_such_module"),
        (["load_from=${NO_SUCH_VARIABLE}/x.pt"], "NO_SUCH_VARIABLE"),
        (["load_from=nowhere/*.pt"], "no checkpoint matches nowhere/*.pt"),
        (["device=gpu"], "'gpu' is not a device"),
    ],
)
def test_bad_settings_are_refused_before_anything_is_written(
    finished_run: Path, tmp_path: Path, changes: list[str], said: str
) -> None:
    assert said in tiny.refusal(
        ddpm_eval.main, tiny.eval_argv(finished_run / "last.pt", tmp_path / "results", *changes)
    )
    assert list(tmp_path.iterdir()) == []


def test_missing_settings_file_is_refused(tmp_path: Path) -> None:
    assert "nowhere.yml cannot be read" in tiny.refusal(ddpm_eval.main, [str(tmp_path / "nowhere.yml")])


def test_folder_that_cannot_be_made_is_refused_by_its_setting(finished_run: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    message = tiny.refusal(ddpm_eval.main, tiny.eval_argv(finished_run / "last.pt", tmp_path / "file" / "results"))
    assert "file/results cannot be made" in message
    assert "evaluation_path" in message


def damaged(kind: str, whole: Path, path: Path) -> None:
    """Write to `path` what is no checkpoint of this network."""
    contents = load_checkpoint(whole)
    if kind == "truncated":
        path.write_bytes(whole.read_bytes()[:5000])
    elif kind == "random bytes":
        path.write_bytes(bytes(range(1, 200)))
    elif kind == "text":
        path.write_text("dataset_file: datasets.synthetic\nseed: 0\n")
    elif kind == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("a.txt", "a")
    elif kind == "code":
        path.write_bytes(pickle.dumps(TouchesAFile(path.parent / "trap"), protocol=2))
    elif kind == "newer":
        torch.save({**contents, "format_version": FORMAT_VERSION + 1}, path)
    elif kind == "other weights":
        save_checkpoint(path, {**contents, "network": {**contents["network"], "base_channels": 64}})
    elif kind == "other data":
        network = {**contents["network"], "num_classes": 3}
        weights = tiny.model(num_classes=3).state_dict()
        save_checkpoint(path, {**contents, "network": network, "average": weights})


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("missing", "there is no checkpoint"),
        ("truncated", "damaged or cut off"),
        ("random bytes", "not a checkpoint"),
        ("text", "not a checkpoint"),
        ("zip", "not a checkpoint"),
        ("code", "not a checkpoint"),
        ("newer", f"format version {FORMAT_VERSION + 1}"),
        ("other weights", "the checkpoint is of another network"),
        ("other data", "num_classes 2, but the checkpoint has 3"),
    ],
)
def test_checkpoint_that_does_not_fit_is_refused(finished_run: Path, tmp_path: Path, kind: str, said: str) -> None:
    path = tmp_path / "checkpoint.pt"
    damaged(kind, finished_run / "last.pt", path)
    assert said in tiny.refusal(ddpm_eval.main, tiny.eval_argv(path, tmp_path / "results"))
    assert not (tmp_path / "results").exists()
    assert not (tmp_path / "trap").exists()


def test_script_ends_with_a_message_and_status_2(tmp_path: Path) -> None:
    path, trap = tmp_path / "checkpoint.pt", tmp_path / "trap"
    path.write_bytes(pickle.dumps(TouchesAFile(trap), protocol=2))
    command = [sys.executable, str(tiny.ROOT / "ddpm_eval.py"), *tiny.eval_argv(path, tmp_path / "results")]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert ended.returncode == 2
    assert ended.stderr.splitlines()[-1].startswith(f"error: {path} is not a checkpoint")
    assert "Traceback" not in ended.stderr
    assert not trap.exists()
    assert not (tmp_path / "results").exists()
