"""Evaluate a CCDM: python ddpm_eval.py [params_eval.yml] [key=value ...]

Samples label maps for every image of a split and scores them against the annotators, together with baselines and,
if the true distribution is known, the oracle. Data with a void class and one label map per image (Cityscapes) is scored
by the mean IoU of fused samples, and the predictions are written as pictures. Prints tables and writes `results.json`,
`results.csv`, `per_image.csv`, `report.html` and `samples.png` to the folder of the evaluation. An interrupted
evaluation continues where it stopped.

`torchrun --nproc_per_node=N ddpm_eval.py ...` distributes the images over N processes; the results are the same.
"""

import inspect
import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from checkpoints.files import SHIPPED_WEIGHTS, find_checkpoint
from checkpoints.model import build_model, model_config
from checkpoints.official import load_model_file
from checkpoints.weights import weights_digest
from datasets import AnnotatedDataset, load_dataset
from datasets.loading import DATASETS, evenly_spaced_indices
from evaluation import Evaluation, Result, sample_panel
from evaluation.examples import write_examples
from evaluation.predictors import model_samples
from evaluation.published import published_results
from evaluation.report import write_report
from evaluation.results import results_contents
from evaluation.settings import EvalSettings
from evaluation.tables import as_text, per_image_csv, results_csv
from models.runtime import apply_runtime_options, resolve_auto
from training.run_dir import FolderLock, make_run_dir
from utils.device import choose_device
from utils.distributed import broadcast_from_main, is_main, local_main_first, process_group
from utils.errors import UserError, os_errors_as_user_error, run_script
from utils.logs import LOGGER, setup_logging
from utils.modules import import_module
from utils.paths import write_atomically, write_text
from utils.settings import load_settings


def main(argv: Sequence[str]) -> None:
    """Evaluate as the command line says. Raises UserError for anything that the user can fix."""
    settings = load_settings(EvalSettings, argv, default_file="params_eval.yml")
    with process_group(), os_errors_as_user_error("the evaluation"):
        run(settings)


def run(settings: EvalSettings) -> None:
    """Load, score and write. The processes of a run share the images; process 0 writes."""
    setup_logging()
    path = broadcast_from_main(lambda: find_checkpoint(settings.load_from))
    checkpoint = load_model_file(path)
    device = choose_device(settings.device)
    named, settings = settings, resolve_auto(with_dataset(settings, checkpoint), device)
    trusted = [module for module in (settings.network, settings.process) if module is not None]
    model = build_model(checkpoint, settings.feature_cond_encoder_weights, trusted)
    model = apply_runtime_options(model.to(device), settings)
    with local_main_first():
        data = open_dataset(settings, checkpoint, named)
    digest = weights_digest(checkpoint["average"])
    evaluation = Evaluation(model, data, settings, digest)
    parent = Path("logs") / path.stem if path.parent == SHIPPED_WEIGHTS else path.parent
    results_path = settings.evaluation_path or str(parent / f"evaluation_{settings.dataset_split}")
    folder = make_run_dir(results_path, "", "evaluation_path")
    lock = FolderLock(folder) if is_main() else None
    LOGGER.info("%s, step %d, %s split of %s", path, checkpoint["step"], settings.dataset_split, settings.dataset_file)

    results = evaluation.run(folder)
    if lock is None:
        return
    about = {
        "settings": settings.model_dump(),
        "dataset_file": settings.dataset_file,
        "dataset": ", ".join([str(settings.dataset_file), Path(getattr(data, "source", "")).name]).rstrip(", "),
        "time_steps": model.process.time_steps,
        "checkpoint": {"path": str(path), "step": checkpoint["step"], "digest_of_weights": digest},
        "training_settings": checkpoint["settings"],
    }
    write_results(folder, evaluation, results, about)
    lock.release()
    LOGGER.info("results in %s", folder)


def with_dataset(settings: EvalSettings, checkpoint: Mapping[str, Any]) -> EvalSettings:
    """The settings with the dataset of the checkpoint, unless they name another. Raises UserError if nothing names a
    dataset, or only the checkpoint names one that is not part of this software."""
    trained = checkpoint["settings"]
    name = settings.dataset_file or trained.get("dataset_file")
    if name is None:
        raise UserError("the checkpoint does not say which dataset it was trained on; set dataset_file")
    params = settings.dataset_params
    if params is None:
        params = dict(trained.get("dataset_params", {})) if name == trained.get("dataset_file") else {}
    chosen = settings.model_copy(update={"dataset_file": name, "dataset_params": params})
    if settings.dataset_file is None and name not in DATASETS:
        raise UserError(
            f"the checkpoint was trained on {name}, which is not part of this software; to import and run it, name it "
            f"yourself: {command(chosen)}"
        )
    return chosen


def command(settings: EvalSettings) -> str:
    """The command of an evaluation that names its dataset."""
    params = yaml.safe_dump(settings.dataset_params, default_flow_style=True, width=2**20).strip()
    words = [f"load_from={settings.load_from}", f"dataset_file={settings.dataset_file}", f"dataset_params={params}"]
    return f"python ddpm_eval.py params_eval.yml {shlex.join(words if settings.dataset_params else words[:2])}"


def open_dataset(settings: EvalSettings, checkpoint: Mapping[str, Any], named: EvalSettings) -> AnnotatedDataset:
    """The split to evaluate, with labels at their original size if the dataset offers them.

    Nothing is created for parameters that only the checkpoint has, but not the user's own settings `named`. Raises
    UserError if there is no such dataset, or it does not fit the model.
    """
    name, params, config = str(settings.dataset_file), dict(settings.dataset_params or {}), model_config(checkpoint)
    accepted = inspect.signature(getattr(import_module(name, "dataset_file", DATASETS), "get_dataset", dict)).parameters
    if "original_labels" in accepted:
        params.setdefault("original_labels", True)
    from_checkpoint = named.dataset_params is None and bool(settings.dataset_params)
    if from_checkpoint:
        LOGGER.info("dataset_params of the checkpoint: %s", settings.dataset_params)
        params |= {"create": False} if "create" in accepted else {}
    try:
        data = load_dataset(name, settings.dataset_split, params)
    except UserError as error:
        if not from_checkpoint:
            raise
        raise UserError(
            f"{error}. That is what the checkpoint says; name the data yourself, also to have it created: "
            f"{command(settings)}"
        ) from error
    for key in ("num_classes", "image_channels"):
        here, there = getattr(data, key), getattr(config, key)
        if here != there:
            raise UserError(f"{name} has {key} {here}, but the checkpoint has {there}")
    return data


def write_results(folder: Path, evaluation: Evaluation, results: Sequence[Result], about: Mapping[str, Any]) -> None:
    """Print the tables, and write all files but those that were written on the way."""
    size, encoder = results[0].images[0].size, evaluation.model.encoder
    published = published_results(getattr(evaluation.data, "benchmark", None), size, encoder is not None)
    contents = results_contents(results, evaluation.classes, published, about)
    LOGGER.info(as_text(contents))
    write_json(folder / "results.json", contents)
    write_text(folder / "results.csv", results_csv(contents))
    write_text(folder / "per_image.csv", per_image_csv(results))
    contents["examples"] = write_examples(evaluation, results[0], folder)
    write_json(folder / "results.json", contents)
    write_report(folder)
    draw_samples(folder / "samples.png", evaluation)


def write_json(path: Path, contents: Mapping[str, Any]) -> None:
    """Write plain data, without NaN."""
    write_text(path, json.dumps(contents, indent=2, allow_nan=False))


def draw_samples(path: Path, evaluation: Evaluation) -> None:
    """Draw some images with their annotations and samples; an earlier picture goes."""
    settings = evaluation.settings
    path.unlink(missing_ok=True)
    if settings.n_validation_images == 0:
        return
    indices = evenly_spaced_indices(len(evaluation.data), settings.n_validation_images)
    predictor = model_samples(
        evaluation.model, evaluation.num_samples[-1], evaluation.sampling, settings.seeds[0], settings.max_batch_size
    )
    figure = sample_panel(evaluation.data, indices, predictor)
    write_atomically(path, lambda temporary: figure.savefig(temporary, format="png", dpi=150))


if __name__ == "__main__":
    run_script(main, __doc__)
