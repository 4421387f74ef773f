"""What runs where there is no POSIX, as on Windows: every import, and a training, evaluation and prediction."""

import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests import tiny
from tests.tiny import ROOT

REMOVE_POSIX = """
import importlib, os, signal, sys

def remove_posix(names):
    ours = {name.partition(".")[0] for name in os.listdir()}  # modules and packages of the current folder
    for name in names:  # once with POSIX, since libraries choose by platform what they import
        importlib.import_module(name)
    for name in [name for name in sys.modules if name.partition(".")[0] in ours]:
        del sys.modules[name]
    for name in ("fcntl", "grp", "pwd", "resource", "termios"):
        sys.modules[name] = None
    for name in ("SIGUSR1", "SIGUSR2", "SIGKILL", "SIGHUP", "SIGALRM", "setitimer"):
        delattr(signal, name)
    for name in ("fork", "sched_getaffinity", "getuid", "geteuid", "killpg", "setsid", "statvfs"):
        delattr(os, name)
    del os.O_NOFOLLOW
"""

IMPORTS = (
    REMOVE_POSIX
    + """
names = sys.argv[1:]
remove_posix(names)
failed = []
for name in names:
    try:
        importlib.import_module(name)
    except (ImportError, AttributeError) as error:
        failed.append(f"{name}: {error}")
sys.exit("; ".join(failed) or 0)
"""
)

SCRIPTS = (
    REMOVE_POSIX
    + """
import multiprocessing

if __name__ == "__main__":
    multiprocessing.set_start_method("spawn")
    sys.path.insert(0, os.getcwd())
    image, folder, training = sys.argv[1], sys.argv[2], sys.argv[3:]
    remove_posix(["ddpm_train", "ddpm_eval", "ddpm_predict"])
    import ddpm_train, ddpm_eval, ddpm_predict
    ddpm_train.main([*training, "mp_loaders=2", "cache=null"])
    ddpm_eval.main(["params_eval.yml", f"load_from={folder}/run/last.pt", "mp_loaders=1", "num_samples=2"])
    ddpm_predict.main([f"{folder}/run/last.pt", image, "--num-samples", "2", "--steps", "2", "--out", f"{folder}/out"])
"""
)


def modules() -> list[str]:
    """Every module that mypy checks, which is all but the tests."""
    names = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["mypy"]["files"]
    files = [path for name in names for path in (sorted((ROOT / name).rglob("*.py")) or [ROOT / name])]
    return [".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for path in files]


def test_every_module_is_imported_without_posix() -> None:
    assert {"ddpm_train", "utils", "training.run_dir"} <= set(modules())
    command = [sys.executable, "-c", IMPORTS, *modules()]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")


@pytest.mark.slow
def test_training_evaluation_and_prediction_run_without_posix_and_with_spawned_workers(
    tmp_path: Path, data_folder: Path
) -> None:
    image, script = tmp_path / "image.png", tmp_path / "script.py"
    Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).save(image)
    script.write_text(SCRIPTS, encoding="utf-8")
    training = tiny.train_argv(data_folder, tmp_path / "run", "train_for=3 steps")
    command = [sys.executable, str(script), str(image), str(tmp_path), *training]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert ended.returncode == 0, ended.stderr
    assert list((tmp_path / "run").rglob("results.json"))
    assert list((tmp_path / "out").rglob("*.png"))
