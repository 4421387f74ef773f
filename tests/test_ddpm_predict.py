"""Prediction: what it writes for images, what it skips, and what it refuses."""

import csv
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import ddpm_predict
from checkpoints.files import load_checkpoint, save_checkpoint
from checkpoints.model import to_config_dict
from models import CCDM, ProcessConfig
from tests import tiny
from utils.errors import UserError
from utils.schema import EvalSettings

FILES = {"areas.json", "entropy.png", "majority.png", "panel.png", "probability_lesion.png", "samples", "samples.npz"}
QUICK = ["--samples", "3", "--steps", "2", "--device", "cpu"]


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Two folders with images of the same name, in one also a large one."""
    rng = np.random.default_rng(0)
    for name, size in (("a/x.png", (8, 8)), ("b/x.png", (8, 8)), ("b/large.png", (13, 30))):
        path = tmp_path / "pictures" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(256, size=size, dtype=np.uint8)).save(path)
    return tmp_path / "pictures"


def predict(checkpoint: Path, out: Path, *arguments: object) -> list[dict[str, str]]:
    ddpm_predict.main([str(checkpoint), *QUICK, "--out", str(out), *map(str, arguments)])
    with (out / "summary.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def samples(folder: Path) -> np.ndarray:
    with np.load(folder / "samples.npz") as arrays:
        found: np.ndarray = arrays["samples"]
    return found


def test_every_image_gets_its_files_and_its_line(finished_run: Path, pictures: Path, tmp_path: Path) -> None:
    lines = predict(finished_run / "best_ged.pt", tmp_path / "out", pictures)
    assert [line["image"] for line in lines] == ["a_x", "large", "b_x"]
    for line in lines:
        folder = tmp_path / "out" / line["image"]
        assert {path.name for path in folder.iterdir()} == FILES
        assert {path.name for path in (folder / "samples").iterdir()} == {"01.png", "02.png", "03.png"}
        drawn = samples(folder)
        assert drawn.shape == (3, int(line["height"]), int(line["width"]))
        assert float(line["pixels_mean"]) == pytest.approx((drawn == 1).sum() / 3, abs=1e-5)
    assert samples(tmp_path / "out" / "large").shape == (3, 13, 30)
    assert not np.array_equal(samples(tmp_path / "out" / "a_x"), samples(tmp_path / "out" / "b_x"))


def test_what_was_done_stands_beside_the_areas(finished_run: Path, pictures: Path, tmp_path: Path) -> None:
    predict(finished_run / "best_ged.pt", tmp_path / "out", pictures / "a", "--seed", 7, "--sampler", "ddim")
    areas = json.loads((tmp_path / "out" / "x" / "areas.json").read_text())
    told = {name: areas[name] for name in ("seed", "sampler", "steps", "num_samples", "tile")}
    assert told == {"seed": 7, "sampler": "ddim", "steps": 2, "num_samples": 3, "tile": [tiny.SIDE, tiny.SIDE]}
    assert areas["file"].endswith("a/x.png")


def test_prediction_is_the_same_again_and_another_with_another_seed(
    finished_run: Path, pictures: Path, tmp_path: Path
) -> None:
    drawn = []
    for name, seed in (("one", 0), ("again", 0), ("other", 1)):
        predict(finished_run / "best_ged.pt", tmp_path / name, pictures / "a", "--seed", seed)
        drawn.append(samples(tmp_path / name / "x"))
    assert np.array_equal(drawn[0], drawn[1])
    assert not np.array_equal(drawn[0], drawn[2])


def test_tile_of_the_users_choice_takes_effect(finished_run: Path, pictures: Path, tmp_path: Path) -> None:
    large = pictures / "b" / "large.png"
    for name, arguments in (("tiles", []), ("whole", ["--tile", 32])):
        predict(finished_run / "best_ged.pt", tmp_path / name, large, *arguments)
    assert json.loads((tmp_path / "whole" / "large" / "areas.json").read_text())["tile"] == [32, 32]
    assert not np.array_equal(samples(tmp_path / "tiles" / "large"), samples(tmp_path / "whole" / "large"))


def test_bad_image_is_skipped_and_the_status_says_so(
    finished_run: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (pictures / "a" / "bad.png").write_text("no picture")
    with pytest.raises(SystemExit) as ended:
        predict(finished_run / "best_ged.pt", tmp_path / "out", pictures)
    assert ended.value.code == 1
    assert "bad.png cannot be read as a picture" in capsys.readouterr().out
    assert {path.name for path in (tmp_path / "out").iterdir()} == {".lock", "a_x", "b_x", "large", "summary.csv"}
    with (tmp_path / "out" / "summary.csv").open(newline="") as file:
        assert len(list(csv.DictReader(file))) == 3


def test_results_among_the_images_are_no_images(finished_run: Path, pictures: Path) -> None:
    for _ in range(2):
        assert len(predict(finished_run / "best_ged.pt", pictures / "results", pictures)) == 3


def test_official_checkpoint_predicts_too(pictures: Path, tmp_path: Path) -> None:
    torch.save(tiny.model().unet.state_dict(), tmp_path / "official.pt")
    assert len(predict(tmp_path / "official.pt", tmp_path / "out", pictures / "a")) == 1


def test_pixel_wise_classifier_is_drawn_from_at_each_pixel(pictures: Path, tmp_path: Path) -> None:
    process = ProcessConfig(1, "single_jump")
    weights = CCDM(tiny.network_shape(), process).state_dict()
    contents = {"settings": {}, **to_config_dict(tiny.network_shape(), process), "model": weights, "average": weights}
    save_checkpoint(tmp_path / "classifier.pt", {**contents, "step": 0})
    predict(tmp_path / "classifier.pt", tmp_path / "out", pictures / "a", "--steps", 25)
    drawn = samples(tmp_path / "out" / "x")
    assert 0.3 < drawn.mean() < 0.7  # what an untrained network thinks of every pixel
    assert not np.array_equal(drawn[0], drawn[1])


def test_images_may_stand_before_and_after_options(finished_run: Path, pictures: Path, tmp_path: Path) -> None:
    arguments = [str(finished_run / "best_ged.pt"), *QUICK, str(pictures / "a"), "--out", str(tmp_path / "out")]
    ddpm_predict.main([*arguments, str(pictures / "b")])
    assert len(list((tmp_path / "out").glob("*/areas.json"))) == 3


def refusal(*argv: object) -> str:
    with pytest.raises(UserError) as error:
        ddpm_predict.main(list(map(str, argv)))
    return str(error.value)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--steps", "51"], "--steps 51: the model has 50 time steps"),
        (["--steps", "0"], "argument --steps: '0' is not a whole number of at least 1"),
        (["--samples", "many"], "'many' is not a whole number"),
        (["--sampler", "euler"], "'ancestral', 'ddim'"),
        (["--sample", "3"], "unrecognized arguments: --sample 3"),
        (["--tile", "0"], "argument --tile"),
        (["--seed", str(2**63)], "argument --seed"),
        (["--device", "gpu"], "'gpu' is not a device"),
        (["nowhere.png"], "there is no file or folder nowhere.png"),
    ],
)
def test_mistakes_are_refused_before_anything_is_written(
    finished_run: Path, pictures: Path, tmp_path: Path, arguments: list[str], said: str
) -> None:
    out = tmp_path / "out"
    assert said in refusal(finished_run / "best_ged.pt", pictures, "--out", out, *arguments)
    assert not out.exists()


def test_missing_checkpoints_images_and_folders_are_refused(finished_run: Path, pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    (tmp_path / "file").write_text("in the way")
    assert "there is no checkpoint" in refusal(tmp_path / "no.pt", pictures, "--out", out)
    assert "no checkpoint matches" in refusal(tmp_path / "*" / "no.pt", pictures, "--out", out)
    assert "IMAGE" in refusal(finished_run / "best_ged.pt")
    assert "--out" in refusal(finished_run / "best_ged.pt", pictures, "--out", tmp_path / "file" / "x")
    assert not out.exists()


def test_script_ends_with_a_message_and_status_2(pictures: Path) -> None:
    command = [sys.executable, str(tiny.ROOT / "ddpm_predict.py"), "nowhere.pt", str(pictures)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert ended.returncode == 2
    assert ended.stderr.splitlines()[-1].startswith("error: there is no checkpoint nowhere.pt")
    assert "Traceback" not in ended.stderr


def test_sampler_is_that_of_the_evaluation_by_default_and_all_options_are_in_the_manual() -> None:
    settings, usual = ddpm_predict.parse(["x.pt", "x.png"]), EvalSettings().sampling
    assert (settings.steps, settings.sampler, settings.samples) == (usual.steps, usual.sampler, 16)
    manual = ddpm_predict.__doc__ or ""
    options = set(vars(settings)) - {"checkpoint", "images"}
    assert options == set(re.findall(r"^--(\w+)", manual, re.MULTILINE))


def test_notebook_lines_of_the_readme_run_as_they_stand(
    finished_run: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    readme = (tiny.ROOT / "README.md").read_text(encoding="utf-8")
    (code,) = (block for block in re.findall(r"```python\n(.*?)```", readme, re.DOTALL) if "from prediction" in block)
    assert len([line for line in code.splitlines() if line]) == 5
    monkeypatch.chdir(tmp_path)
    (tmp_path / "logs" / "my_run").mkdir(parents=True)
    save_checkpoint(tmp_path / "logs" / "my_run" / "best_ged.pt", load_checkpoint(finished_run / "best_ged.pt"))
    (pictures / "a" / "x.png").rename(tmp_path / "nodule.png")
    known: dict[str, object] = {}
    exec(code, known)
    assert (tmp_path / "panel.png").stat().st_size > 0
