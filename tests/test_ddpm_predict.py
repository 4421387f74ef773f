"""Prediction: what it writes for images, what it skips, and which mistakes it reports."""

import csv
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import ddpm_predict
from diffusion import SamplingConfig
from diffusion.classifier import get_process
from models import CCDM
from tests import tiny
from tests.datasets.test_volumes import write_nifti
from utils.errors import UserError

FILES = {"areas.json", "entropy.png", "majority.png", "panel.png", "probability_lesion.png", "samples", "samples.npz"}
PREPROCESSING = {
    "image_mean": [0.5], "image_std": [0.5], "size": [tiny.SIDE, tiny.SIDE], "class_names": ["background", "lesion"],
}  # fmt: skip


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return tiny.save_model(tmp_path / "logs" / "my_run" / "last.pt", preprocessing=PREPROCESSING)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Two folders with images of the same name, and a large image in one of them."""
    rng = np.random.default_rng(0)
    for name, size in (("a/x.png", (8, 8)), ("b/x.png", (8, 8)), ("b/large.png", (13, 30))):
        path = tmp_path / "pictures" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(256, size=size, dtype=np.uint8)).save(path)
    return tmp_path / "pictures"


def predict(checkpoint: Path, *arguments: object, out: Path) -> list[dict[str, str]]:
    """Predict with 3 samples and 2 steps; returns the lines of the summary."""
    quick = ["--num-samples", "3", "--steps", "2", "--device", "cpu", "--out", str(out)]
    ddpm_predict.main([str(checkpoint), *quick, *map(str, arguments)])
    with (out / "summary.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def results(folder: Path) -> tuple[np.ndarray, dict[str, Any]]:
    """The samples of an image, and the contents of areas.json."""
    with np.load(folder / "samples.npz") as arrays:
        return arrays["samples"], json.loads((folder / "areas.json").read_text())


def test_every_image_gets_its_files_and_its_line(checkpoint: Path, pictures: Path) -> None:
    for out in [pictures / "results"] * 2:  # earlier results inside the folder of images are not images
        lines = predict(checkpoint, pictures / "a", "--seed", 7, "--sampler", "ddim", pictures, out=out)
    assert [line["image"] for line in lines] == ["a_x", "large", "b_x"]
    for line in lines:
        folder = out / line["image"]
        assert {path.name for path in folder.iterdir()} == FILES
        assert {path.name for path in (folder / "samples").iterdir()} == {"01.png", "02.png", "03.png"}
        labels, areas = results(folder)
        assert labels.shape == (3, int(line["height"]), int(line["width"]))
        assert float(line["pixels_mean"]) == pytest.approx((labels == 1).sum() / 3, abs=1e-5)
        assert areas["file"] == line["file"]
        recorded = {name: areas[name] for name in ("seed", "sampler", "steps", "num_samples", "tile", "last_step")}
        assert recorded == {
            "seed": 7, "sampler": "ddim", "steps": 2, "num_samples": 3, "tile": [tiny.SIDE, tiny.SIDE],
            "last_step": "argmax",
        }  # fmt: skip
    assert results(out / "large")[0].shape == (3, 13, 30)


def test_samples_depend_on_image_seed_and_tile(checkpoint: Path, pictures: Path, tmp_path: Path) -> None:
    found = {}
    for name, arguments in {"one": [], "again": [], "seed": ["--seed", 1], "tile": ["--tile", 32]}.items():
        predict(checkpoint, pictures, *arguments, out=tmp_path / name)
        found[name] = results(tmp_path / name / "large")[0]
    assert np.array_equal(found["one"], found["again"])
    assert not np.array_equal(found["one"], found["seed"])
    assert not np.array_equal(found["one"], found["tile"])
    assert results(tmp_path / "tile" / "large")[1]["tile"] == [32, 32]
    assert not np.array_equal(results(tmp_path / "one" / "a_x")[0], results(tmp_path / "one" / "b_x")[0])


def test_bad_image_is_skipped_and_sets_the_exit_status(
    checkpoint: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (pictures / "a" / "bad.png").write_text("no picture")
    with pytest.raises(SystemExit) as ended:
        predict(checkpoint, pictures, out=tmp_path / "out")
    assert ended.value.code == 1
    said = capsys.readouterr()
    assert re.search(r"skipped: .*bad\.png", said.out)
    assert " 9.0/9 samples" in said.err.splitlines()[-1]  # of three images
    assert {path.name for path in (tmp_path / "out").iterdir()} == {".lock", "a_x", "b_x", "large", "summary.csv"}


def test_no_image_that_can_be_predicted_is_an_error(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_text("no picture")
    with pytest.raises(UserError, match="no image could be predicted"):
        predict(checkpoint, tmp_path / "bad.png", out=tmp_path / "out")
    assert not (tmp_path / "out" / "summary.csv").exists()


def test_images_that_are_one_pixel_high_too_large_or_not_writable_do_not_end_the_others(
    checkpoint: Path,
    pictures: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    Image.new("L", (9, 1)).save(pictures / "a" / "row.png")
    for name, width in (("huge", 7), ("occupied", 8)):
        Image.new("L", (width, 8)).save(pictures / "a" / f"{name}.png")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "occupied").write_text("a file where a folder is needed")
    sample = CCDM.sample

    def with_little_memory(self: CCDM, image: Any, *arguments: Any, **options: Any) -> Any:
        if image.shape[-1] == 7:
            raise MemoryError
        return sample(self, image, *arguments, **options)

    monkeypatch.setattr(CCDM, "sample", with_little_memory)
    with pytest.raises(SystemExit) as ended:
        predict(checkpoint, pictures, out=tmp_path / "out")
    assert ended.value.code == 1
    said = capsys.readouterr().out
    assert re.search(r"skipped: .*huge\.png: out of memory", said)
    assert re.search(r"skipped: .*occupied", said)
    with (tmp_path / "out" / "summary.csv").open(newline="") as file:
        assert [line["image"] for line in csv.DictReader(file)] == ["row", "a_x", "large", "b_x"]


def test_any_name_of_a_file_and_a_class_can_be_shown(
    tmp_path: Path, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    preprocessing = PREPROCESSING | {"class_names": ["$\\frac$", "=$x_$ </b>\n"]}
    path = tiny.save_model(tmp_path / "logs" / "my_run" / "last.pt", preprocessing=preprocessing)
    name = os.fsdecode(b"=$x_$ caf\xe9 \x1b[31m.png")
    image = pictures / "a" / "x.png"
    (pictures / "c").mkdir()
    image.rename(pictures / "c" / name)
    (pictures / "c" / f"_{name}").write_bytes(b"no image")
    with pytest.raises(SystemExit):
        predict(path, pictures / "c", out=tmp_path / "out")
    (line,) = csv.DictReader((tmp_path / "out" / "summary.csv").open(newline="", encoding="utf-8"))
    assert line["file"].endswith("=$x_$ caf\ufffd \ufffd[31m.png")
    assert line["name"] == "'=$x_$ </b>\ufffd"
    assert (tmp_path / "out" / line["image"].removeprefix("'") / "panel.png").is_file()
    assert "skipped: " in (shown := capsys.readouterr().out)
    assert "\x1b[31m" not in shown
    assert "\\x1b[31m" in shown


def test_second_run_keeps_the_lines_of_the_first_and_no_samples_that_it_did_not_draw(
    checkpoint: Path, pictures: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    predict(checkpoint, pictures, out=out)
    lines = predict(checkpoint, pictures / "b" / "large.png", "--num-samples", 2, out=out)
    assert [(line["image"], line["num_samples"]) for line in lines] == [("a_x", "3"), ("b_x", "3"), ("large", "2")]
    assert {path.name for path in (out / "large" / "samples").iterdir()} == {"01.png", "02.png"}


def test_no_results_of_another_model_or_kind_of_image_remain(checkpoint: Path, pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    predict(checkpoint, pictures / "b" / "large.png", out=out)
    (out / "large" / "notes.txt").touch()
    first = {path.name for path in (out / "large").iterdir()}
    other = tiny.save_model(tmp_path / "other.pt")
    predict(other, pictures / "b" / "large.png", out=out)
    renamed = {"probability_1.png", "probability_lesion.png"}
    assert {path.name for path in (out / "large").iterdir()} ^ first == renamed
    write_nifti(tmp_path / "large.nii")
    predict(other, tmp_path / "large.nii", out=out)
    files = {path.name for path in (out / "large").iterdir() if path.is_file()}
    kept = {"panel.png", "areas.json", "notes.txt"}
    assert files == kept | {f"{name}.nii.gz" for name in ("samples", "majority", "entropy", "probability_1")}
    assert list((out / "large" / "samples").iterdir()) == []


def test_window_is_the_same_for_all_images(checkpoint: Path, pictures: Path, tmp_path: Path) -> None:
    bright = np.asarray(Image.open(pictures / "a" / "x.png")).astype(np.int32) * 10 - 1000
    np.save(pictures / "a" / "raw.npy", bright)
    predict(checkpoint, pictures / "a" / "raw.npy", "--window", -1000, 1550, out=tmp_path / "raw")
    predict(checkpoint, pictures / "a" / "x.png", out=tmp_path / "plain")
    assert np.array_equal(results(tmp_path / "raw" / "raw")[0], results(tmp_path / "plain" / "x")[0])


def test_classifier_draws_every_pixel_in_one_step(pictures: Path, tmp_path: Path) -> None:
    classifier = CCDM(tiny.model().network, get_process(2))
    path = tiny.save_model(tmp_path / "classifier.pt", classifier, process="diffusion.classifier")
    assert "no ddim step" in refusal(path, pictures, "--sampler", "ddim", "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    predict(path, pictures / "a", "--steps", 25, out=tmp_path / "out")
    labels, areas = results(tmp_path / "out" / "x")
    assert (areas["steps"], areas["last_step"]) == (1, "draw")
    assert not np.array_equal(labels[0], labels[1])


def refusal(*argv: object) -> str:
    return tiny.refusal(ddpm_predict.main, list(map(str, argv)))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--steps", "51"], "51 sampling steps requested, but the process has 50"),
        (["--steps", "0"], "argument --steps: '0' is not an integer of 1 .. "),
        (["--num-samples", "100000000"], "argument --num-samples: '100000000' is not an integer of 1 .. 10000"),
        (["--seed", "9" * 5000], "argument --seed: '999999"),
        (["--num-samples", "many"], "'many' is not an integer"),
        (["--sampler", "euler"], "'ancestral', 'coherent', 'ddim'"),
        (["--sample", "3"], "unrecognized arguments: --sample 3"),
        (["--tile", "0"], "argument --tile"),
        (["--seed", str(2**63)], "argument --seed"),
        (["--window", "400", "-1000"], "LOW is below HIGH"),
        (["--device", "gpu"], "'gpu' is not a device"),
        (["nowhere.png"], "there is no file or folder nowhere.png"),
    ],
)
def test_mistakes_are_reported_before_anything_is_written(
    checkpoint: Path, pictures: Path, tmp_path: Path, arguments: list[str], message: str
) -> None:
    assert message in refusal(checkpoint, pictures, "--out", tmp_path / "out", *arguments)
    assert not (tmp_path / "out").exists()


def test_missing_checkpoints_images_and_folders_are_reported(checkpoint: Path, pictures: Path, tmp_path: Path) -> None:
    assert "no checkpoint matches" in refusal(tmp_path / "*" / "no.pt", pictures, "--out", tmp_path / "out")
    assert "IMAGE" in refusal(checkpoint)
    assert "--out" in refusal(checkpoint, pictures, "--out", pictures / "a" / "x.png" / "out")
    assert not (tmp_path / "out").exists()
    command = [sys.executable, str(tiny.ROOT / "ddpm_predict.py"), "nowhere.pt", str(pictures)]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
    assert ended.returncode == 2
    assert ended.stderr.splitlines() == ["error: there is no checkpoint nowhere.pt"]


def test_defaults_are_those_of_sampling_and_all_options_are_documented() -> None:
    options, default = vars(ddpm_predict.parse(["x.pt", "x.png"])), SamplingConfig()
    assert (options["steps"], options["sampler"], options["num_samples"]) == (default.steps, default.sampler, 16)
    documented = re.findall(r"^--([\w-]+)", ddpm_predict.__doc__ or "", re.MULTILINE)
    assert {name.replace("-", "_") for name in documented} == set(options) - {"checkpoint", "images"}


@pytest.mark.parametrize("document", ["README.md", "docs/prediction.md"])
def test_python_examples_run(
    checkpoint: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, document: str
) -> None:
    text = (tiny.ROOT / document).read_text(encoding="utf-8")
    (code,) = (block for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "from prediction" in block)
    monkeypatch.chdir(tmp_path)
    (pictures / "a" / "x.png").rename(tmp_path / "nodule.png")
    known: dict[str, Any] = {}
    exec(code, known)
    assert known["samples"].labels.shape == (1, 16, 8, 8)
    assert (tmp_path / "panel.png").exists() == ("panel.png" in code)
