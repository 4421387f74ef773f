"""Trainings that cannot be: refused with a message, before anything is written."""

import subprocess
import sys
from pathlib import Path

import pytest

import ddpm_train
from checkpoints.files import load_checkpoint, save_checkpoint
from tests import tiny


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (["batchsize=3"], "did you mean `batch_size`"),
        (["batch_size=many"], "`batch_size` should be a valid integer"),
        (["time_steps=0"], "`time_steps` should be greater than or equal to 1"),
        (["sampling.sampler=euler"], "'ancestral' or 'ddim'"),
        (["class_weights=[1, 1, 1]"], "class_weights has 3 values; datasets.synthetic has 2 classes"),
        (["sampling.steps=51"], "51"),
        (["dataset_pipeline_train=[flup]"], "unknown 'flup'"),
        (["dataset_file=no_such_module"], "no module no_such_module"),
        (["dataset_params={sied: 8}"], "sied"),
        (["beta_schedule=linear", "beta_schedule_params={s: 0.008}"], "beta_schedule"),
        (["beta_schedule_params={s: -1}"], "does not decrease"),
        (["unet_openai.num_head_channels=7"], "heads of 7"),
        (["load_from=nowhere.pt"], "there is no checkpoint nowhere.pt"),
        (["load_from=auto", "output_path=./${NOW}"], "one without ${NOW}"),
        (["optim.max_grad_norm=0"], "`optim.max_grad_norm` should be greater than 0"),
        (["checkpoint_freq=0"], "`checkpoint_freq` should be greater than or equal to 1"),
        (["device=cuda:99"], "cuda:99 is not there"),
        (["output_path=${NO_SUCH_VARIABLE}/x"], "NO_SUCH_VARIABLE"),
    ],
)
def test_bad_settings_are_refused_before_anything_is_written(
    data_folder: Path, tmp_path: Path, changes: list[str], said: str
) -> None:
    assert said in tiny.refusal(ddpm_train.main, tiny.train_argv(data_folder, tmp_path / "run", *changes))
    assert list(tmp_path.iterdir()) == []


def test_folder_that_cannot_be_made_is_refused(data_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    message = tiny.refusal(ddpm_train.main, tiny.train_argv(data_folder, tmp_path / "file" / "run"))
    assert f"output_path: the folder {tmp_path}/file/run cannot be made" in message


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("unet_openai.base_channels=64", "base_channels is 32 there and 64 in these settings"),
        ("time_steps=60", "time_steps is 50 there and 60 in these settings"),
        ("batch_size=6", "batch_size 4, the settings say 6"),
    ],
)
def test_checkpoint_that_does_not_fit_is_not_continued(
    finished_run: Path, data_folder: Path, tmp_path: Path, change: str, said: str
) -> None:
    changes = [f"load_from={finished_run}/last.pt", change]
    assert said in tiny.refusal(ddpm_train.main, tiny.train_argv(data_folder, tmp_path / "run", *changes))
    assert list(tmp_path.iterdir()) == []


def test_truncated_checkpoint_is_not_continued(finished_run: Path, data_folder: Path, tmp_path: Path) -> None:
    whole = (finished_run / "last.pt").read_bytes()
    (tmp_path / "cut.pt").write_bytes(whole[: len(whole) // 2])
    assert "damaged or cut off" in tiny.refusal(
        ddpm_train.main, tiny.train_argv(data_folder, tmp_path / "run", f"load_from={tmp_path}/cut.pt")
    )
    assert not (tmp_path / "run").exists()


def test_checkpoint_without_the_optimisers_state_is_not_continued(
    finished_run: Path, data_folder: Path, tmp_path: Path
) -> None:
    contents = load_checkpoint(finished_run / "last.pt")
    save_checkpoint(tmp_path / "part.pt", {name: contents[name] for name in contents if name != "optimizer"})
    assert "optimizer" in tiny.refusal(
        ddpm_train.main, tiny.train_argv(data_folder, tmp_path / "run", f"load_from={tmp_path}/part.pt")
    )


def script(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(tiny.ROOT / "ddpm_train.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


@pytest.mark.parametrize("mistake", ["unknown key", "unwritable folder"])
def test_script_ends_with_a_message_and_status_2(data_folder: Path, tmp_path: Path, mistake: str) -> None:
    output, in_the_way = tmp_path / "run", tmp_path / "file"
    in_the_way.write_text("")
    folder, change, said = {
        "unknown key": (output, "optim.learningrate=1", "did you mean `optim.learning_rate`?"),
        "unwritable folder": (in_the_way / "run", "seed=0", "cannot be made"),
    }[mistake]
    ended = script(*tiny.train_argv(data_folder, folder, change))
    assert ended.returncode == 2
    assert ended.stderr.splitlines()[-1].startswith("error: ")
    assert said in ended.stderr
    assert "Traceback" not in ended.stderr
    assert not output.exists()
