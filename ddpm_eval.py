"""Evaluate a CCDM: python ddpm_eval.py [params_eval.yml] [key=value ...]

Draws label maps for every image of a split and scores them against the annotators, beside the baselines and, where the
true distribution is known, the oracle. Prints one table; writes it as `results.json`, and `samples.png`.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from datasets import AnnotatedDataset, KnownDistribution, load_dataset
from datasets.loading import evaluation_batches, spread_indices
from evaluation import (
    METRICS,
    Predictor,
    Scores,
    always_empty,
    majority_vote,
    model_samples,
    oracle,
    sample_panel,
    score,
)
from models import restore
from utils.checkpoint import find_checkpoint, load_checkpoint
from utils.config import load_settings
from utils.device import choose_device
from utils.errors import UserError, run_script
from utils.paths import write_atomically
from utils.runs import LOGGER, log_to, run_folder
from utils.schema import EvalSettings


def main(argv: Sequence[str]) -> None:
    """Run an evaluation from the command line's arguments.

    Raises:
        UserError: for whatever the user can mend.
    """
    settings = load_settings(EvalSettings, argv, default_file="params_eval.yml")
    log_to()
    path = find_checkpoint(settings.load_from)
    checkpoint = load_checkpoint(path)
    model = restore(checkpoint).to(choose_device(settings.device))
    if settings.sampling.steps is not None and settings.sampling.steps > model.process.time_steps:
        raise UserError(
            f"sampling.steps is {settings.sampling.steps}; the model has {model.process.time_steps} time steps"
        )
    data = open_data(settings, checkpoint)
    folder = run_folder(settings.evaluation_path or str(path.parent / f"evaluation_{settings.dataset_split}"), "")
    LOGGER.info("%s, step %d, on %d images", path, checkpoint["step"], len(indices_of(settings, data)))

    draw = model_samples(model, settings.evaluations, settings.sampling, settings.seed, settings.sampling_batch)
    results = {
        name: evaluate(name, predictor, settings, data) for name, predictor in predictors(settings, data, draw).items()
    }
    LOGGER.info(table(results))
    write_results(folder / "results.json", settings, checkpoint, results)
    draw_picture(folder / "samples.png", settings, data, draw)
    LOGGER.info("results in %s", folder)


def open_data(settings: EvalSettings, checkpoint: Mapping[str, Any]) -> AnnotatedDataset:
    """The split to evaluate: the checkpoint's data set, where the settings name no other."""
    trained = checkpoint["settings"]
    dataset_file = settings.dataset_file or trained["dataset_file"]
    params = settings.dataset_params
    if params is None:
        params = trained["dataset_params"] if dataset_file == trained["dataset_file"] else {}
    data = load_dataset(dataset_file, settings.dataset_split, params)
    network = checkpoint["network"]
    for what in ("num_classes", "image_channels"):
        if getattr(data, what) != network[what]:
            raise UserError(f"{dataset_file} has {what} {getattr(data, what)}, but the checkpoint has {network[what]}")
    return data


def predictors(settings: EvalSettings, data: AnnotatedDataset, draw: Predictor) -> dict[str, Predictor]:
    """The model, the oracle where there is one, and the baselines."""
    named = {"model": draw}
    if isinstance(data, KnownDistribution):
        named["oracle"] = oracle(data, data.num_classes, settings.evaluations, settings.seed)
    return {**named, "majority vote": majority_vote(data.num_classes), "always empty": always_empty(data.num_classes)}


def evaluate(name: str, predictor: Predictor, settings: EvalSettings, data: AnnotatedDataset) -> Scores:
    """The scores of one predictor on the images that the settings name."""
    batches = evaluation_batches(data, indices_of(settings, data), settings.batch_size, settings.mp_loaders)
    return score(predictor, batches, data.num_classes, title=name)


def indices_of(settings: EvalSettings, data: AnnotatedDataset) -> list[int]:
    """The images that are evaluated."""
    return spread_indices(len(data), settings.dataset_val_max_size)


def table(results: Mapping[str, Scores]) -> str:
    """One line a predictor, means with 95 % bootstrap intervals."""
    header = (
        f"{'':14s} {'n':>4s}  {'GED':^22s}  {'HM-IoU':^22s}  {'div. labels':>11s} {'div. samples':>12s} {'s/image':>9s}"
    )
    lines = [header]
    for name, scores in results.items():
        ged, hm_iou = (
            f"{interval.mean:.4f} [{interval.low:.3f}, {interval.high:.3f}]"
            for interval in (scores.interval("ged"), scores.interval("hm_iou"))
        )
        rest = f"{scores.mean('diversity_labels'):11.4f} {scores.mean('diversity_samples'):12.4f}"
        rest += f" {scores.seconds_per_image:9.4f}"
        lines.append(f"{name:14s} {scores.num_samples:4d}  {ged:22s}  {hm_iou:22s}  {rest}")
    return "\n".join(lines)


def write_results(
    path: Path, settings: EvalSettings, checkpoint: Mapping[str, Any], results: Mapping[str, Scores]
) -> None:
    """The table as JSON, with the settings it was made with."""
    contents = {
        "settings": settings.model_dump(),
        "checkpoint_step": checkpoint["step"],
        "training_settings": checkpoint["settings"],
        "results": {
            name: {
                "num_samples": scores.num_samples,
                "num_images": len(scores.groups),
                "seconds_per_image": scores.seconds_per_image,
                **{metric: scores.interval(metric)._asdict() for metric in METRICS},
            }
            for name, scores in results.items()
        },
    }
    text = json.dumps(contents, indent=2)
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def draw_picture(path: Path, settings: EvalSettings, data: AnnotatedDataset, draw: Predictor) -> None:
    """Some images with their annotators and samples."""
    if settings.n_validation_images == 0:
        return
    indices = spread_indices(len(data), settings.n_validation_images)
    (batch,) = evaluation_batches(data, indices, len(indices), workers=0)
    figure = sample_panel(batch, draw(batch))
    write_atomically(path, lambda temporary: figure.savefig(temporary, format="png", dpi=150))


if __name__ == "__main__":
    run_script(main)
