"""Evaluate a CCDM: python ddpm_eval.py [params_eval.yml] [key=value ...]

Draws label maps for every image of a split and scores them against the annotators, beside the baselines and, where the
true distribution is known, the oracle. Prints one table and writes, into the evaluation's folder, `results.json`,
`results.csv`, `per_image.csv`, `report.html` and `samples.png`. An evaluation that was interrupted continues.

Where the data set has a void class and one label map an image (Cityscapes), samples are fused and scored by mean IoU
instead, and the predictions are written as pictures, beside `results.json`, `results.csv`, `report.html` and
`samples.png`.

`torchrun --nproc_per_node=N ddpm_eval.py ...` shares the images among N processes; the results are the same.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from checkpoints.files import find_checkpoint
from checkpoints.model import restore
from checkpoints.official import load_model_file
from checkpoints.weights import weights_digest
from datasets import AnnotatedDataset, load_dataset
from datasets.loading import evaluation_batches, evenly_spaced_indices
from evaluation import bits_per_pixel, evaluate, model_samples, sample_panel
from evaluation.classes import Classes, SemanticDataset
from evaluation.figures import headline
from evaluation.gallery import gallery
from evaluation.report import render_report, render_segmentation_report
from evaluation.results import as_csv, as_json, per_image_csv, table
from evaluation.segmentation import evaluate_segmentation
from evaluation.segmentation_gallery import segmentation_gallery
from evaluation.segmentation_results import published, segmentation_csv, segmentation_json, segmentation_table
from models import CCDM
from models.runtime import apply_runtime_options, resolve_auto
from training.run_dir import FolderLock, make_run_dir
from utils.device import choose_device
from utils.distributed import broadcast_from_main, is_main, local_main_first, process_group
from utils.errors import UserError, corrupt_file_as_user_error, os_errors_as_user_error, run_script
from utils.logs import LOGGER, setup_logging
from utils.paths import write_atomically, write_text
from utils.schema import EvalSettings
from utils.settings import load_settings


def main(argv: Sequence[str]) -> None:
    """Run an evaluation from the command line's arguments.

    Raises:
        UserError: for whatever the user can mend.
    """
    settings = load_settings(EvalSettings, argv, default_file="params_eval.yml")
    with process_group(), os_errors_as_user_error("the evaluation"):
        run(settings)


def run(settings: EvalSettings) -> None:
    """Load, score and write; the processes of a run share the images, and process 0 writes."""
    setup_logging()
    path = broadcast_from_main(lambda: find_checkpoint(settings.load_from))
    checkpoint = load_model_file(path)
    device = choose_device(settings.device)
    settings = resolve_auto(settings, device)
    with corrupt_file_as_user_error(path):
        model = restore(checkpoint, settings.feature_cond_encoder.weights)
    model = apply_runtime_options(model.to(device), settings)
    check_steps(settings, model)
    dataset_file, data = open_data(settings, checkpoint)
    evaluation_path = settings.evaluation_path or str(path.parent / f"evaluation_{settings.dataset_split}")
    folder = make_run_dir(evaluation_path, dataset_file, "evaluation_path")
    lock = FolderLock(folder) if is_main() else None
    LOGGER.info("%s, step %d, %s split of %s", path, checkpoint["step"], settings.dataset_split, dataset_file)

    about = {
        "settings": settings.model_dump(),
        "dataset_file": dataset_file,
        "checkpoint": {
            "path": str(path), "step": checkpoint["step"], "digest_of_weights": weights_digest(checkpoint["average"])
        },
        "training_settings": checkpoint["settings"],
    }  # fmt: skip
    if isinstance(data, SemanticDataset):
        score_segmentation(model, data, settings, folder, about)
    else:
        score_distribution(model, data, settings, folder, about)
    if lock is None:
        return
    draw_picture(folder / "samples.png", settings, data, model)
    LOGGER.info("results in %s", folder)


def score_distribution(
    model: CCDM, data: AnnotatedDataset, settings: EvalSettings, folder: Path, about: dict[str, Any]
) -> None:
    """Score the samples of every image against its annotators."""
    digest = about["checkpoint"]["digest_of_weights"]
    entries = evaluate(model, data, settings, folder / "rows", digest)
    LOGGER.info(table(entries, about["dataset_file"]))
    bits = bits_per_pixel(model, data, settings, folder / "rows", digest) if settings.bits_per_pixel else None
    if bits is not None:
        LOGGER.info("bits per pixel, at most: %.5f [%.5f, %.5f]", *bits)
    if not is_main():
        return
    about = {**about, "bits_per_pixel": None if bits is None else bits._asdict()}
    results = as_json(entries, about)
    write_text(folder / "results.json", results)
    write_text(folder / "results.csv", as_csv(entries))
    write_text(folder / "per_image.csv", per_image_csv(entries))
    exhibits = gallery(model, data, settings, headline(entries).scores)
    report = render_report(json.loads(results), entries, exhibits, model.process.time_steps)
    write_text(folder / "report.html", report)


def score_segmentation(
    model: CCDM, data: SemanticDataset, settings: EvalSettings, folder: Path, about: dict[str, Any]
) -> None:
    """Score the fused samples of a split against its one true label map an image, and keep what is predicted."""
    entries = evaluate_segmentation(model, data, settings, folder, about["checkpoint"]["digest_of_weights"])
    if not is_main():
        return
    classes = Classes.of(data)
    paper = published(about["dataset_file"], entries[0].network_size, with_dino=model.encoder is not None)
    LOGGER.info(segmentation_table(entries, classes, paper, settings.evaluation_vote_strategy))
    results = segmentation_json(entries, classes, paper, about)
    write_text(folder / "results.json", results)
    write_text(folder / "results.csv", segmentation_csv(entries, classes))
    exhibits = segmentation_gallery(model, data, settings, entries[0])
    report = render_segmentation_report(json.loads(results), classes, exhibits, model.process.time_steps)
    write_text(folder / "report.html", report)


def check_steps(settings: EvalSettings, model: CCDM) -> None:
    """Refuse more sampling steps than the process has."""
    if model.is_classifier:
        return
    for steps in (settings.sampling.steps or 1, *settings.sampling_steps):
        if steps > model.process.time_steps:
            raise UserError(f"{steps} sampling steps asked for; the model has {model.process.time_steps} time steps")


def open_data(settings: EvalSettings, checkpoint: Mapping[str, Any]) -> tuple[str, AnnotatedDataset]:
    """Name and split to evaluate: the checkpoint's data set, where the settings name no other."""
    trained = checkpoint["settings"]
    dataset_file = settings.dataset_file or trained.get("dataset_file")
    if dataset_file is None:
        raise UserError("the checkpoint does not say what it was trained on; set dataset_file")
    params = settings.dataset_params
    if params is None:
        params = trained["dataset_params"] if dataset_file == trained.get("dataset_file") else {}
    with local_main_first():
        data = load_dataset(dataset_file, settings.dataset_split, params)
    network = checkpoint["network"]
    for what in ("num_classes", "image_channels"):
        if getattr(data, what) != network[what]:
            raise UserError(f"{dataset_file} has {what} {getattr(data, what)}, but the checkpoint has {network[what]}")
    return dataset_file, data


def draw_picture(path: Path, settings: EvalSettings, data: AnnotatedDataset, model: CCDM) -> None:
    """Some images with their annotators and samples."""
    if settings.n_validation_images == 0:
        return
    indices = evenly_spaced_indices(len(data), settings.n_validation_images)
    (batch,) = evaluation_batches(data, indices, len(indices), workers=0)
    draw = model_samples(
        model, max(settings.evaluations), settings.sampling, settings.seeds[0], settings.max_batch_size
    )
    figure = sample_panel(batch, draw(batch))
    write_atomically(path, lambda temporary: figure.savefig(temporary, format="png", dpi=150))


if __name__ == "__main__":
    run_script(main, __doc__)
