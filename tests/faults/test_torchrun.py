"""Real processes under torchrun: preempted ones are not restarted, failed ones are, from the last checkpoint."""

import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from checkpoints.files import load_checkpoint
from tests import tiny
from tests.faults.conftest import CHANGES, STEPS, wait_for

SLOW_MODULE = """
import os, signal, time
from datasets.synthetic import get_dataset as whole

class Slow:
    def __init__(self, data): self.data, self.num_classes, self.image_channels = data, 2, 1
    def __len__(self): return len(self.data)
    def __getitem__(self, index):
        time.sleep(0.02)
        if os.environ.get("DIES") == os.environ["RANK"] and os.path.exists(os.environ["AFTER"]):
            if os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
                os.kill(os.getpid(), signal.SIGKILL)
        return self.data[index]

def get_dataset(split, **params):
    data = whole(split, **params)
    return Slow(data) if split == "train" else data
"""


def torchrun(data: Path, folder: Path, *options: str, before: str = "", **environment: str) -> subprocess.Popen[str]:
    """Start a training of two processes in `folder`, from a shell that runs `before` first."""
    (folder.parent / "slow_lesions.py").write_text(SLOW_MODULE)
    arguments = tiny.train_argv(data, folder, *CHANGES, "dataset_file=slow_lesions", "checkpoint_freq=1")
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", *options]
    command = shlex.join([*launch, str(tiny.ROOT / "ddpm_train.py"), *arguments])
    return subprocess.Popen(
        ["bash", "-c", f"{before} exec {command}"],
        cwd=folder.parent, env={**os.environ, "OMP_NUM_THREADS": "1", "AFTER": str(folder / "last.pt"), **environment},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
    )  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "run"


def workers_of(launcher: subprocess.Popen[str]) -> list[int]:
    return [int(pid) for pid in Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children").read_text().split()]


def ended(launcher: subprocess.Popen[str]) -> tuple[int, str]:
    """Wait for the launcher; returns its status and output."""
    try:
        output, _ = launcher.communicate(timeout=300)
    finally:
        launcher.terminate()
    return launcher.returncode, output


def test_preempted_workers_are_not_restarted(data_folder: Path, folder: Path) -> None:
    launcher = torchrun(data_folder, folder, "--max-restarts=3")
    wait_for(folder / "last.pt")
    os.kill(workers_of(launcher)[1], signal.SIGUSR1)  # one rank is enough
    status, output = ended(launcher)
    assert status == 0
    assert output.count("run folder: ") == 1
    assert "stopped after step" in output
    assert "Traceback" not in output
    assert 1 <= load_checkpoint(folder / "last.pt")["step"] < STEPS


def test_signal_to_all_processes_reaches_the_workers_if_the_launcher_ignores_it(
    data_folder: Path, folder: Path
) -> None:
    launcher = torchrun(data_folder, folder, "--max-restarts=3", before="trap '' USR1;")
    wait_for(folder / "last.pt")
    for pid in (launcher.pid, *workers_of(launcher)):
        os.kill(pid, signal.SIGUSR1)
    status, output = ended(launcher)
    assert status == 0
    assert "stopped after step" in output


def test_terminated_launcher_gives_the_workers_time_to_save(data_folder: Path, folder: Path) -> None:
    launcher = torchrun(data_folder, folder, "--max-restarts=3")
    wait_for(folder / "last.pt")
    launcher.terminate()
    status, output = ended(launcher)
    assert status != 0
    assert output.count("run folder: ") == 1
    assert "stopped after step" in (folder / "log.txt").read_text()


def test_failed_run_is_restarted_and_resumes(data_folder: Path, folder: Path) -> None:
    launcher = torchrun(data_folder, folder, "--max-restarts=1", DIES="1")
    status, output = ended(launcher)
    assert status == 0, output
    assert output.count("run folder: ") == 2
    first_steps = [line for line in (folder / "log.txt").read_text().splitlines() if "first step" in line]
    assert "first step: 1 of" in first_steps[0]
    assert "first step: 1 of" not in first_steps[1]
    assert load_checkpoint(folder / "last.pt")["step"] == STEPS
