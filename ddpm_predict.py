"""Sample label maps for your own images: python ddpm_predict.py CHECKPOINT IMAGE... [options]

CHECKPOINT  a checkpoint of ddpm_train.py or an official one; of the files that match a quoted pattern, the newest
IMAGE       files, folders and patterns; PNG, JPEG, TIFF, BMP, WebP, GIF, NPY (H x W or H x W x channels), DICOM, NIfTI

--num-samples N  label maps per image (16)
--steps N        steps of the sampler, 1 to the T of training (10, or T if that is less)
--sampler NAME   coherent (default), ancestral or ddim
--seed N         seed of the noise (0)
--device NAME    auto, cpu, cuda, cuda:N or mps
--out FOLDER     folder of the results (./predictions); those of an image with the same name are replaced
--window LOW HIGH  values of the files that become black and white, such as -1000 400 for CT in Hounsfield units
--volumes        the DICOM files of a series, or the frames of one file, are the slices of a volume; NIfTI always is one
--plane NAME     slices of volumes: axial (default), coronal or sagittal
--tile SIDE      height and width of the tiles in which larger images are processed (the size of the training images)
--weights FILE   weights of a frozen DINO encoder, if they are not where they were in training
--network NAME   module of the network, if the model was trained with one of your own
--process NAME   module of the process, likewise

Every image gets a folder with its samples, their mean probability, entropy and majority, the areas of the classes, and
a panel that shows them at a glance; those of volumes are NIfTI files. `summary.csv` lists the areas of all images.
Images that cannot be read, are too large for the memory, or whose results cannot be written are reported and skipped,
and the exit status is then 1, or 2 if none is left.
"""

import argparse
import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from tqdm import tqdm

from datasets.nifti import PLANES
from datasets.volumes import read_volume
from diffusion import SAMPLERS, Process, SamplingConfig, reverse_process
from prediction import load_model, read_image
from prediction.finding import SUMMARY, Item, find_images, group_volumes, output_names
from prediction.outputs import write_outputs
from prediction.summary import read_summary, summary_csv, summary_rows
from prediction.trained import Trained
from prediction.volumes import sample_volume, write_volume
from training.run_dir import FolderLock, make_run_dir
from utils.config import abbreviate
from utils.errors import UserError, os_errors_as_user_error, run_script
from utils.logs import LOGGER, setup_logging
from utils.paths import expand_path, write_text

EXIT_SOME_SKIPPED = 1
MAX_SAMPLES = 10_000
DEFAULT_TILE = (256, 256)
"""For checkpoints that do not store the size of the training images."""

_BAR = "sampling: {percentage:3.0f}%|{bar}| {n:.1f}/{total:.0f} samples [{elapsed}<{remaining}]"


class Job(NamedTuple):
    """How all images of a run are predicted."""

    trained: Trained
    options: argparse.Namespace
    sampling: SamplingConfig
    tile: tuple[int, int]


def main(argv: Sequence[str]) -> None:
    """Predict from the command line's arguments.

    Raises:
        UserError: for whatever the user can fix, and if all images were skipped.
        SystemExit: with status 1 if some were.
    """
    options = parse(argv)
    with os_errors_as_user_error("the prediction"):
        num_skipped = run(options)
    if num_skipped:
        sys.exit(EXIT_SOME_SKIPPED)


def run(options: argparse.Namespace) -> int:
    """Load the model, sample and write the results; returns the number of images that were skipped."""
    setup_logging()
    paths, others = find_images(options.images, expand_path(options.out))
    if others:
        named = ", ".join(path.name for path in others[:5])
        LOGGER.info("%d other files are no images: %s%s", len(others), named, ", ..." if len(others) > 5 else "")
    trained = load_model(options.checkpoint, options.device, options.weights, options.network, options.process)
    process = trained.model.process
    sampling = SamplingConfig(steps=options.steps, sampler=options.sampler).resolve(process)
    check_sampler(process, sampling)
    tile = (options.tile, options.tile) if options.tile else trained.preprocessing.size or DEFAULT_TILE
    about = {"checkpoint": options.checkpoint, "seed": options.seed, "tile": tile, **sampling.model_dump()}
    folder = make_run_dir(options.out, "", "--out")
    rows: list[list[str]] = []
    job = Job(trained, options, sampling, tile)
    items = group_volumes(paths, options.volumes)
    num_skipped, total = 0, len(items) * options.num_samples
    with FolderLock(folder), tqdm(total=total, bar_format=_BAR, dynamic_ncols=True) as bar:
        names = output_names([item.path for item in items], reserved=[SUMMARY, ".lock"])
        earlier = read_summary(folder / SUMMARY)
        for number, (item, name) in enumerate(zip(items, names, strict=True), start=1):
            results, finished = {"image": name, "file": str(item.path), **about}, bar.n
            remaining = (len(items) - number) * options.num_samples
            try:
                with os_errors_as_user_error(item.path):
                    rows += summary_rows(predict(item, folder / name, job, results, bar))
            except UserError as error:
                num_skipped += 1
                LOGGER.warning("skipped: %s", error)
                bar.total = finished + remaining
                bar.update(finished - bar.n)
            else:
                predicted = {row[0] for row in rows}
                kept = [row for row in earlier if row[0] not in predicted]
                write_text(folder / SUMMARY, summary_csv(kept + rows))
                bar.update(bar.total - remaining - bar.n)  # its fractions do not add up exactly
    if num_skipped == len(items):
        raise UserError("no image could be predicted, for the reasons above")
    LOGGER.info("%d of %d images, results in %s", len(items) - num_skipped, len(items), folder)
    return num_skipped


def predict(item: Item, folder: Path, job: Job, about: dict[str, Any], bar: "tqdm[NoReturn]") -> dict[str, Any]:
    """Sample for an image or a volume and write the results; returns its areas. Raises UserError if that is not
    possible."""
    trained, options, classes = job.trained, job.options, job.trained.classes
    if item.is_volume:
        volume = read_volume(item.files, options.plane, options.window)
        bar.total += options.num_samples * (len(volume.slices) - 1)
        samples = sample_volume(
            trained, volume, options.num_samples, job.sampling, options.seed, tile=job.tile, progress=bar.update
        )
        return write_volume(folder, volume, samples, trained, about)
    image = read_image(item.path, trained.preprocessing, options.window)
    samples = trained.model.sample(
        image, options.num_samples, job.sampling, options.seed, tile=job.tile, progress=bar.update
    )
    return write_outputs(folder, image, samples, classes, about)


def check_sampler(process: Process, sampling: SamplingConfig) -> None:
    """Take one step with one pixel. Raises UserError for a process that does not have the step of this sampler."""
    logits, key = process.alpha_bar.new_zeros(1, process.num_classes, 1, 1), process.alpha_bar.new_zeros(1).long()
    next(reverse_process(process, lambda x_t, t: logits, key, (1, 1), sampling))


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; --help lists the options")


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """The command line's arguments. Raises UserError for an option that does not exist, or an impossible value."""
    parser = _Parser(prog="ddpm_predict.py", allow_abbrev=False)
    parser.add_argument("checkpoint", metavar="CHECKPOINT")
    parser.add_argument("images", metavar="IMAGE", nargs="+")
    parser.add_argument("--num-samples", type=_integer(1, MAX_SAMPLES), default=16)
    parser.add_argument("--steps", type=_integer(1))
    parser.add_argument("--sampler", choices=list(SAMPLERS), default=SamplingConfig().sampler)
    parser.add_argument("--seed", type=_integer(0), default=0)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out", default="predictions")
    parser.add_argument("--window", type=float, nargs=2, metavar=("LOW", "HIGH"))
    parser.add_argument("--volumes", action="store_true")
    parser.add_argument("--plane", choices=list(PLANES), default="axial")
    parser.add_argument("--tile", type=_integer(1))
    for name in ("--weights", "--network", "--process"):
        parser.add_argument(name)
    options = parser.parse_intermixed_args(argv)  # lets images follow options, too
    if options.window is not None and not -math.inf < options.window[0] < options.window[1] < math.inf:
        parser.error(f"argument --window: {options.window[0]} {options.window[1]} is not a range; LOW is below HIGH")
    return options


def _integer(minimum: int, maximum: int = 2**63 - 1) -> Callable[[str], int]:
    def parse_integer(text: str) -> int:
        if not text.isdecimal() or len(text) > 20 or not minimum <= int(text) <= maximum:
            raise argparse.ArgumentTypeError(f"{abbreviate(text)} is not an integer of {minimum} .. {maximum}")
        return int(text)

    return parse_integer


if __name__ == "__main__":
    run_script(main, __doc__)
