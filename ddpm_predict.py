"""Label maps for your own images: python ddpm_predict.py CHECKPOINT IMAGE... [options]

CHECKPOINT  a checkpoint of ddpm_train.py or an official one; of a pattern's matches (in quotes), the newest
IMAGE       files, folders and patterns; PNG, JPEG, TIFF, NPY (H x W or H x W x channels), DICOM (needs pydicom)

--samples N      label maps per image (16)
--steps N        steps of the sampler, at most the T of training
--sampler NAME   ancestral or ddim
--seed N         of the noise (0)
--device NAME    auto, cpu, cuda or cuda:N
--out FOLDER     where results go (./predictions); what is there of an image of the same name is replaced
--tile SIDE      height and width of the tiles in which larger images are computed; as in training where not given
--weights FILE   weights of a frozen DINO encoder, where they are not where training had them

Every image gets a folder with its samples, their mean probability, entropy, majority, areas and a panel to look at;
`summary.csv` has the areas of all images. An image that cannot be read is reported and skipped, and the exit status is
then 1.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn, get_args

import torch
from torch import Tensor
from tqdm import tqdm

from checkpoints.preprocessing import Preprocessing
from evaluation.predictors import CLASSIFIER_DRAWS
from models import Samples, SamplingOptions
from prediction import Trained, load_model, read_image
from prediction.classes import ClassTable
from prediction.finding import find_images, output_names
from prediction.outputs import write_outputs
from prediction.summary import Summary, summary_csv
from training.run_dir import FolderLock, make_run_dir
from utils.errors import UserError, os_errors_as_user_error, run_script
from utils.logs import LOGGER, setup_logging
from utils.paths import expand_path, write_text
from utils.schema import EvalSettings, SamplerName

EXIT_SOME_SKIPPED = 1
SUMMARY = "summary.csv"
USUAL_TILE = (256, 256)
"""Where nothing is known of the training images."""


def main(argv: Sequence[str]) -> None:
    """Predict from the command line's arguments.

    Raises:
        UserError: for whatever the user can mend.
        SystemExit: with status 1, where images were skipped.
    """
    settings = parse(argv)
    with os_errors_as_user_error("the prediction"):
        skipped = run(settings)
    if skipped:
        sys.exit(EXIT_SOME_SKIPPED)


def run(settings: argparse.Namespace) -> list[str]:
    """Load, draw and write; returns what was wrong with the images that were skipped."""
    setup_logging()
    paths = find_images(settings.images, expand_path(settings.out))
    trained = load_model(settings.checkpoint, settings.device, settings.weights)
    options = sampling_options(settings, trained)
    folder = make_run_dir(settings.out, "", "--out")
    lock = FolderLock(folder)
    names = output_names(paths, taken=[SUMMARY, ".lock"])
    about = {"checkpoint": settings.checkpoint, **vars(options)}
    classes = ClassTable.of(trained.model.process.num_classes, trained.preprocessing)

    skipped: list[str] = []
    statistics: list[dict[str, Any]] = []
    with tqdm(total=len(paths) * options.num_samples, desc="drawing", unit="sample", dynamic_ncols=True) as bar:
        for done, (path, name) in enumerate(zip(paths, names, strict=True), start=1):
            try:
                image, drawn = draw(path, trained, options, bar.update)
            except UserError as error:
                LOGGER.warning("skipped: %s", error)
                skipped.append(str(error))
            else:
                place = {"image": name, "file": str(path)}
                write_outputs(folder / name, image, drawn, classes, {**place, **about})
                statistics.append({**place, **Summary.of(drawn).statistics(classes)})
                write_text(folder / SUMMARY, summary_csv(statistics))
            bar.update(done * options.num_samples - bar.n)
    LOGGER.info("%d of %d images, results in %s", len(statistics), len(paths), folder)
    del lock
    return skipped


def draw(
    path: Path, trained: Trained, options: SamplingOptions, progress: Callable[[float], object]
) -> tuple[Tensor, Samples]:
    """An image and its label maps, on the CPU.

    Raises:
        UserError: for an image that cannot be read, or does not fit into the memory.
    """
    model = trained.model
    image = read_image(path, trained.preprocessing)
    labels, total = [], torch.zeros(1, model.process.num_classes, *image.shape[-2:])
    with os_errors_as_user_error(path):
        for pack in model.packs(image.to(model.process.alpha_bar.device), options):
            labels.append(pack.labels.cpu())
            total += pack.probabilities.sum(0).float().cpu()
            progress(len(pack.labels))
    return image, Samples(torch.cat(labels)[None], total / options.num_samples)


def sampling_options(settings: argparse.Namespace, trained: Trained) -> SamplingOptions:
    """How label maps are drawn.

    Raises:
        UserError: for more steps than the process has.
    """
    model, steps = trained.model, settings.steps
    tile = tile_of(settings.tile, trained.preprocessing)
    if model.is_classifier:
        return SamplingOptions(
            settings.samples, CLASSIFIER_DRAWS.steps, seed=settings.seed, last_step="draw", tile=tile
        )
    if steps is not None and steps > model.process.time_steps:
        raise UserError(f"--steps {steps}: the model has {model.process.time_steps} time steps")
    usual = EvalSettings().sampling
    return SamplingOptions(
        settings.samples, steps, settings.sampler, settings.seed, usual.eta, usual.last_step, tile=tile
    )


def tile_of(side: int | None, preprocessing: Preprocessing) -> tuple[int, int]:
    """Height and width of the tiles: as asked for, or else of the training images."""
    return (side, side) if side is not None else preprocessing.size or USUAL_TILE


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; --help lists what there is")


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """The command line's arguments; the sampler's defaults are those of the evaluation.

    Raises:
        UserError: for an option that does not exist, or an impossible value.
    """
    usual = EvalSettings().sampling
    parser = _Parser(prog="ddpm_predict.py", allow_abbrev=False)
    parser.add_argument("checkpoint", metavar="CHECKPOINT")
    parser.add_argument("images", metavar="IMAGE", nargs="+")
    parser.add_argument("--samples", type=_at_least(1), default=16)
    parser.add_argument("--steps", type=_at_least(1), default=usual.steps)
    parser.add_argument("--sampler", choices=get_args(SamplerName), default=usual.sampler)
    parser.add_argument("--seed", type=_at_least(0), default=0)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out", default="predictions")
    parser.add_argument("--tile", type=_at_least(1))
    parser.add_argument("--weights")
    return parser.parse_intermixed_args(argv)  # so that images may come after options, too


def _at_least(least: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        if not text.isdecimal() or not least <= int(text) < 2**63:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least {least}")
        return int(text)

    return number


if __name__ == "__main__":
    run_script(main, __doc__)
