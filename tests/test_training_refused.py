"""Trainings that are refused with a message, before anything is written."""

import subprocess
import sys
from pathlib import Path

import pytest

import ddpm_train
from tests import tiny
from training.run_dir import FolderLock


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (["batchsize=3"], "did you mean `batch_size`"),
        (["batch_size=many"], "`batch_size` should be a valid integer"),
        (["process_params.time_steps=0"], "process_params: `time_steps` should be greater than or equal to 1"),
        (["process_params.time_steps=1000000"], "process_params: `time_steps` should be less than or equal to 10000"),
        (["network_params.num_res_blocks=1000000"], "`num_res_blocks` should be less than or equal to 32"),
        (["network_params.base_channels=3200000"], "`base_channels` should be less than or equal to 4096"),
        (["network_params.base_channels=4096", "network_params.channel_mult=[1, 4]"], "16384 channels is too wide"),
        (["network_params.channel_mult=[1000000]"], "`channel_mult.0` should be less than or equal to 4096"),
        (["batch_size=1000000000"], "`batch_size` should be less than or equal to 65536"),
        (["mp_loaders=1000000"], "`mp_loaders` should be less than or equal to 256"),
        (["num_samples=100000000"], "`num_samples` should be less than or equal to 10000"),
        (["process_params.timesteps=9"], "unknown key `timesteps`; did you mean `time_steps`?"),
        (["process=no_such_module"], "process: there is no module no_such_module"),
        (["network=json"], "network: json has no function `get_network`"),
        (["sampling.sampler=euler"], "choose from: ancestral, coherent, ddim"),
        (["class_weights=[1, 1, 1]"], "class_weights has 3 values; datasets.synthetic has 2 classes"),
        (["class_weights=[-1, 1]"], "`class_weights.list[constrained-float].0` should be greater than or equal to 0"),
        (["class_weights=[0, 0]"], "class_weights are all 0; expected a positive one"),
        (["sampling.steps=51"], "51 sampling steps requested, but the process has 50"),
        (["dataset_pipeline_train=[flup]"], "unknown name 'flup'"),
        (["dataset_file=no_such_module"], "no module no_such_module"),
        (["dataset_params={sied: 8}"], "sied"),
        (["process_params={beta_schedule: linear, beta_schedule_params: {s: 0.008}}"], "beta_schedule"),
        (["process_params.beta_schedule_params={s: -1}"], "does not decrease"),
        (["network_params.num_head_channels=7"], "heads of 7"),
        (["network_params.chanel_mult=[1]"], "did you mean `channel_mult`?"),
        (["network_params.num_classes=2"], "network_params.num_classes follows from the dataset"),
        (["load_from=nowhere.pt"], "there is no checkpoint nowhere.pt"),
        (["load_from=auto", "output_path=./${NOW}"], "without ${NOW}"),
        (["optim.max_grad_norm=0"], "`optim.max_grad_norm` should be greater than 0"),
        (["checkpoint_freq=0"], "`checkpoint_freq` should be greater than or equal to 1"),
        (["device=cuda:99"], "cuda:99"),
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


def test_nothing_is_cached_before_all_settings_are_checked(
    data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unwanted(*_: object) -> None:
        raise AssertionError("the data were cached")

    monkeypatch.setattr(ddpm_train, "cached", unwanted)
    for change in ("sampling.steps=51", "load_from=nowhere.pt", "dataset_pipeline_train=[flup]", "class_weights=[1]"):
        tiny.refusal(ddpm_train.main, tiny.train_argv(data_folder, tmp_path / "run", "cache=memory", change))


def test_folder_of_another_run_is_refused_before_its_checkpoint_is_read(data_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "last.pt").write_text("half written by the other run")
    with FolderLock(folder):
        message = tiny.refusal(ddpm_train.main, tiny.train_argv(data_folder, folder, "load_from=auto"))
    assert f"another run is writing into {folder}" in message
    assert "choose another folder" in message


def script(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(tiny.ROOT / "ddpm_train.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


def test_script_ends_with_a_message_and_status_2(data_folder: Path, tmp_path: Path) -> None:
    argv = tiny.train_argv(data_folder, tmp_path / "run", "optim.learningrate=1")
    command = [sys.executable, str(tiny.ROOT / "ddpm_train.py"), *argv]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert ended.returncode == 2
    assert ended.stderr.splitlines()[-1].startswith("error: ")
    assert "did you mean `optim.learning_rate`?" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert not (tmp_path / "run").exists()
