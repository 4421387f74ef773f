"""Draw the figures of docs/method.md and docs/results.md: python docs/figures.py

The data are the process, the synthetic dataset, and `docs/steps.csv`, which has rows of the `per_image.csv` of

    python ddpm_eval.py params_eval.yml dataset_val_max_size=64 'sweep.steps=[5,10,25,100]' sweep.samplers=ancestral
    python ddpm_eval.py params_eval.yml dataset_val_max_size=64 'sweep.steps=[5,10,25]'

Those of docs/results.md come from `docs/lidc_training.csv`, the validations in the log of `runs/lidc_cpu.sh`, and from
`docs/lidc_steps.csv`, the same rows of

    python ddpm_eval.py params_eval.yml load_from=weights/lidc_small dataset_params.path=data_lidc.hdf5 \\
        dataset_split=val dataset_val_max_size=200 precision=bfloat16 ...
"""

import csv
import sys
from pathlib import Path

import matplotlib
import torch
from matplotlib.figure import Figure

DOCS = Path(__file__).parent
sys.path.insert(0, str(DOCS.parent))

from datasets import load_dataset  # noqa: E402
from datasets.loading import evaluation_batches, evenly_spaced_indices  # noqa: E402
from datasets.synthetic import SyntheticLesions  # noqa: E402
from diffusion import alpha_bar_table  # noqa: E402
from diffusion.samplers import time_grid  # noqa: E402
from evaluation import oracle  # noqa: E402
from metrics import PairwiseOverlap, ged_from, paired_bootstrap_interval  # noqa: E402

_T, _STEPS, _MAX_SAMPLES, _IMAGES = 250, 10, 64, 128
_BLUE, _ORANGE, _GREY = "#0072b2", "#d55e00", "#777777"

Measured = dict[tuple[str, int], dict[str, list[float]]]
"""GED16, HM-IoU16 and the group (the patient, on LIDC) of every image, by sampler and steps."""


def schedule() -> Figure:
    """Alpha-bar over time with the times that a sampler visits, and its last values compared with the paper's Eq. 5."""
    figure = Figure(figsize=(7.2, 3.0), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=[3, 2])
    table = alpha_bar_table("cosine", _T)
    grid = time_grid(table, _STEPS)
    left.plot(table, color=_BLUE, label="ᾱ (here and in the official code)")
    left.plot(grid, table[grid], "o", color=_BLUE, markersize=4, label=f"grid of {_STEPS} steps")
    left.set(xlabel="t", ylabel="ᾱ")
    left.legend(frameon=False, fontsize=8)
    last = torch.arange(_T - 8, _T + 1)
    right.semilogy(last, table[last], "o-", color=_BLUE, markersize=4, label="here")
    right.semilogy(last[:-1], table[last[1:]], "s--", color=_ORANGE, markersize=4, label="paper's Eq. 5")
    right.set(xlabel="t", title="the last steps")
    right.legend(frameon=False, fontsize=8)
    return figure


def ged_over_samples() -> Figure:
    """GED of the true distribution over the number of samples, measured and by the formula."""
    dataset = load_dataset("datasets.synthetic", "test", {})
    assert isinstance(dataset, SyntheticLesions)
    counts = [1, 2, 4, 8, 16, 32, _MAX_SAMPLES]
    predict, geds, distances = oracle(dataset, _MAX_SAMPLES), [], []
    for batch in evaluation_batches(dataset, evenly_spaced_indices(len(dataset), _IMAGES), 16, workers=0):
        pairs = PairwiseOverlap.from_labels(batch.labels, predict(batch).labels, dataset.num_classes, batch.present)
        geds.append(torch.stack([ged_from(pairs.first(n)).ged for n in counts]))
        distances.append(ged_from(pairs).diversity_samples * _MAX_SAMPLES / (_MAX_SAMPLES - 1))
    measured, delta = torch.cat(geds, 1).mean(1), float(torch.cat(distances).mean())
    figure = Figure(figsize=(4.6, 3.0), layout="constrained")
    axes = figure.subplots()
    annotators = batch.labels.shape[1]
    axes.plot(counts, [delta / annotators + delta / n for n in counts], "-", color=_GREY, label="Δ / 4 + Δ / n")
    axes.plot(counts, measured, "o", color=_BLUE, label=f"oracle, {_IMAGES} images")
    axes.set(xscale="log", xlabel="number of samples n", ylabel="GED")
    axes.set_xticks(counts, [str(n) for n in counts])
    axes.minorticks_off()
    axes.set_ylim(0)
    axes.legend(frameon=False, fontsize=8)
    return figure


def quality_over_steps() -> Figure:
    """Differences of the quick start from 100 ancestral steps."""
    return _over_steps(_measured("steps.csv"))


def lidc_over_steps() -> Figure:
    """Differences of the small LIDC network from 100 ancestral steps."""
    return _over_steps(_measured("lidc_steps.csv"))


def lidc_training() -> Figure:
    """GED and HM-IoU of the small LIDC network over the images seen and over minutes."""
    with (DOCS / "lidc_training.csv").open(encoding="utf-8", newline="") as file:
        rows = [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]
    thousands, minutes = [row["images"] / 1000 for row in rows], [row["minutes"] for row in rows]
    rate = thousands[-1] / minutes[-1]
    figure = Figure(figsize=(7.2, 3.2), layout="constrained")
    names = {"ged_8": "GED8 (lower is better)", "hm_iou_8": "HM-IoU8 (higher is better)"}
    for axes, (metric, label) in zip(figure.subplots(1, 2), names.items(), strict=True):
        axes.plot(thousands, [row[metric] for row in rows], "o-", color=_BLUE, markersize=4)
        axes.set(xlabel="thousand images", ylabel=label, xlim=0)
        above = axes.secondary_xaxis("top", functions=(lambda x: x / rate, lambda x: x * rate))
        above.set_xlabel("minutes on two CPU cores")
    return figure


def _over_steps(measured: Measured) -> Figure:
    """Differences in GED and HM-IoU from the most ancestral steps, with paired 95 % intervals."""
    most = max(steps for _, steps in measured)
    figure = Figure(figsize=(7.2, 3.0), layout="constrained")
    names = {"ged_16": "GED16 (lower is better)", "hm_iou_16": "HM-IoU16 (higher is better)"}
    for axes, (metric, title) in zip(figure.subplots(1, 2), names.items(), strict=True):
        reference, patients = measured["ancestral", most][metric], measured["ancestral", most]["group"]
        samplers = sorted({sampler for sampler, _ in measured})
        for position, (sampler, colour) in enumerate(zip(samplers, (_BLUE, _ORANGE), strict=False)):
            steps = sorted(steps for name, steps in measured if name == sampler and steps != most)
            intervals = [paired_bootstrap_interval(measured[sampler, n][metric], reference, patients) for n in steps]
            means = [interval.mean for interval in intervals]
            errors = [[i.mean - i.low for i in intervals], [i.high - i.mean for i in intervals]]
            shifted = [n * 1.06**position for n in steps]
            axes.errorbar(shifted, means, errors, fmt="o-", color=colour, markersize=4, capsize=2, label=sampler)
        axes.axhline(0, color=_GREY, linewidth=0.8)
        axes.set(xscale="log", xlabel="steps", ylabel=f"difference from {most} ancestral steps", title=title)
        every = sorted({number for _, number in measured} - {most})
        axes.set_xticks(every, [str(number) for number in every])
        axes.minorticks_off()
    figure.axes[0].legend(frameon=False, fontsize=8)
    return figure


def _measured(name: str) -> Measured:
    """The rows of a file in this folder."""
    measured: Measured = {}
    with (DOCS / name).open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            columns = measured.setdefault((row["sampler"], int(row["steps"])), {})
            for column in ("group", "ged_16", "hm_iou_16"):
                columns.setdefault(column, []).append(float(row[column]))
    return measured


FIGURES = {
    "schedule": schedule,
    "ged_over_samples": ged_over_samples,
    "quality_over_steps": quality_over_steps,
    "lidc_training": lidc_training,
    "lidc_over_steps": lidc_over_steps,
}


def main() -> None:
    """Write all figures to docs/figures/."""
    matplotlib.rcParams.update({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False})
    (DOCS / "figures").mkdir(exist_ok=True)
    for name, draw in FIGURES.items():
        draw().savefig(DOCS / "figures" / f"{name}.png", dpi=150, metadata={"Software": None})


if __name__ == "__main__":
    main()
