"""Compare settings by training each of them with several seeds: python -m benchmarks.ablation [variants.yml] ...

The file maps the name of each variant to the settings that it changes; the others change the first one and are compared
with it. Every run is a training, and an evaluation of the validation split, by the scripts and in a folder of its own.
Repeating the command continues where it stopped, and more variants or seeds can be added.

--seeds N ...            seeds of the trainings (0 1 2)
--out FOLDER             folder of the runs (logs/ablation)
--settings KEY=VALUE ... changes of all variants, such as "train_for=416 steps"
"""

import argparse
import csv
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from metrics import paired_bootstrap_interval
from utils.errors import UserError, run_script
from utils.paths import write_text
from utils.yaml_files import read_yaml

ROOT = Path(__file__).resolve().parents[1]
METRICS = ("ged_16", "hm_iou_16")


class Run(NamedTuple):
    """Scores of every validation image (metrics x images), and the minutes of training."""

    scores: NDArray[np.float64]
    minutes: float


def main(argv: Sequence[str] | None = None) -> None:
    """Run what has not been run yet, and print the table.

    Raises:
        UserError: for a file that does not list variants, and if a run fails.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ablation")
    parser.add_argument("variants", nargs="?", type=Path, default=ROOT / "benchmarks" / "ablation.yml")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=Path("logs/ablation"))
    parser.add_argument("--settings", nargs="+", default=[])
    options = parser.parse_args(argv)
    variants = read_yaml(options.variants)
    for name, changes in variants.items():
        if not isinstance(changes, list) or not all(isinstance(change, str) for change in changes):
            raise UserError(f"{options.variants}: {name} must be a list of key=value texts, such as [loss.raters=all]")
    runs: dict[str, list[Run]] = {}
    common = [*options.settings, *next(iter(variants.values()), [])]
    for seed in options.seeds:
        for name, changes in variants.items():
            folder = options.out.resolve() / f"{name}_{seed}"
            runs.setdefault(name, []).append(run(folder, [*common, *changes, f"seed={seed}"]))
            print(f"{name}, seed {seed}: {_numbers(runs[name][-1].scores.mean(1))}", flush=True)
    print("\n" + table(runs))


def run(folder: Path, changes: Sequence[str]) -> Run:
    """Train and evaluate with the changed settings, unless that has been done.

    Raises:
        UserError: if one of the scripts fails.
    """
    results, minutes = folder / "evaluation_val" / "per_image.csv", folder / "minutes.txt"
    if not minutes.exists():
        start = time.perf_counter()
        _script("ddpm_train.py", f"output_path={folder}", "load_from=auto", *changes)
        write_text(minutes, f"{(time.perf_counter() - start) / 60:.2f}\n")
    if not results.exists():
        checkpoint = f"load_from={folder}/last.pt"
        _script("ddpm_eval.py", checkpoint, "dataset_split=val", "n_validation_images=0")
    with results.open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["predictor"] == "model"]
    return Run(np.array([[float(row[name]) for row in rows] for name in METRICS]), float(minutes.read_text()))


def table(runs: Mapping[str, Sequence[Run]]) -> str:
    """Means over seeds, their standard deviation, and the paired difference from the first variant, as Markdown.

    The interval is a bootstrap over the images, each of which has its mean over the seeds.
    """
    titles = ["variant", "GED16", "HM-IoU16", "difference of GED16", "difference of HM-IoU16", "minutes"]
    lines = [f"| {' | '.join(titles)} |", "| --- " * len(titles) + "|"]
    first = _mean_over_seeds(next(iter(runs.values())))
    for name, of_seeds in runs.items():
        mean, means = _mean_over_seeds(of_seeds), np.array([run.scores.mean(1) for run in of_seeds])
        spread = means.std(0, ddof=1) if len(means) > 1 else np.full(len(METRICS), np.nan)
        cells = [f"{value:.4f} ± {std:.4f}" for value, std in zip(means.mean(0), spread, strict=True)]
        for own, reference in zip(mean, first, strict=True):
            interval = paired_bootstrap_interval(own, reference)
            cells.append(f"{interval.mean:+.4f} [{interval.low:+.4f}, {interval.high:+.4f}]")
        lines.append(f"| {' | '.join([name, *cells])} | {np.mean([run.minutes for run in of_seeds]):.1f} |")
    return "\n".join(lines)


def _mean_over_seeds(runs: Sequence[Run]) -> NDArray[np.float64]:
    mean: NDArray[np.float64] = np.mean([run.scores for run in runs], axis=0)
    return mean


def _numbers(means: NDArray[np.float64]) -> str:
    return "  ".join(f"{name} {value:.4f}" for name, value in zip(METRICS, means, strict=True))


def _script(name: str, *arguments: str) -> None:
    ended = subprocess.run([sys.executable, name, *arguments], cwd=ROOT, stderr=subprocess.PIPE, text=True, check=False)
    if ended.returncode:
        raise UserError(f"{name} {' '.join(arguments)} ended with status {ended.returncode}:\n{ended.stderr[-2000:]}")


if __name__ == "__main__":
    run_script(main, __doc__)
