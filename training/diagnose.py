"""Why are the samples bad? python -m training.diagnose RUN_FOLDER [key=value ...]

Reads the settings, the last checkpoint and the learning curve of a run, and compares on some validation images: the
loss at several noise levels with that of predictions without the image, the samples with the annotations, the averaged
with the raw weights, and the range of the inputs with that of the training images. Prints one page that ends with the
most probable causes. Settings of the run can be overridden, such as device=cpu.
"""

import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from checkpoints.files import LAST, load_checkpoint
from checkpoints.model import build_model
from checkpoints.weights import load_weights
from datasets import AnnotatedDataset, load_dataset
from datasets.loading import EvaluationBatch, evaluation_batches, evenly_spaced_indices
from diffusion import SamplingConfig
from evaluation.evaluate import void_class
from evaluation.image_metrics import Comparison
from evaluation.predictors import model_samples
from metrics import ged_from
from models import CCDM
from models.runtime import apply_runtime_options, resolve_auto
from training.settings import TrainSettings
from training.tensorboard import read_scalars
from utils.device import choose_device
from utils.errors import UserError, run_script
from utils.noise import derive_key, image_keys
from utils.settings import load_settings

NUM_IMAGES, BATCH_SIZE, NUM_SAMPLES = 32, 8, 8
LEVELS = (0.99, 0.9, 0.5, 0.1)
"""alpha-bar of the noise levels at which the loss is measured, in addition to that at T."""


class Level(NamedTuple):
    """Cross entropies of x_0 at one time, in nats per pixel: of the network, and of the best prediction from x_t at the
    same pixel, without the image."""

    t: int
    alpha_bar: float
    network: float
    without_image: float


class Samples(NamedTuple):
    """Means over images: GED, mean distance of two samples, share of empty maps, and of neighbours that differ."""

    ged: float
    diversity: float
    empty: float
    edges: float


class Report(NamedTuple):
    """Everything that is measured."""

    num_images: int  # of the validation split
    levels: list[Level]
    frequencies_only: float  # cross entropy of the class frequencies, in nats per pixel
    averaged: Samples
    raw: Samples
    annotations: Samples
    inputs: dict[str, tuple[float, float, float, float]]  # minimum, mean, maximum, standard deviation by split
    losses: list[tuple[int, float]]  # step, training loss


def main(argv: Sequence[str]) -> None:
    """Diagnose the run that the first argument names. Raises UserError for a folder without settings or checkpoint."""
    if not argv:
        raise UserError("expected the folder of a run, such as logs/my_run")
    folder = Path(argv[0])
    if not (folder / "params.yml").is_file():
        raise UserError(f"{folder} is not the folder of a run: it has no params.yml")
    settings = load_settings(TrainSettings, [str(folder / "params.yml"), *argv[1:]], default_file="params.yml")
    print(as_text(diagnose(folder, settings)))


def diagnose(folder: Path, settings: TrainSettings) -> Report:
    """Measure. Raises UserError if the checkpoint or the data cannot be read."""
    checkpoint, device = load_checkpoint(folder / LAST), choose_device(settings.device)
    encoder = settings.feature_cond_encoder
    weights = None if encoder is None else encoder.weights
    model = build_model(checkpoint, weights, [settings.network, settings.process]).to(device)
    splits = {split: load_dataset(settings.dataset_file, split, settings.dataset_params) for split in ("train", "val")}
    apply_runtime_options(model, resolve_auto(settings.model_copy(update={"compile": False}), device))
    data = splits["val"]
    averaged, annotations = compare_samples(model, data)
    levels, frequencies_only = compare_losses(model, data)
    load_weights(model, checkpoint["model"])
    raw, _ = compare_samples(model, data)
    images = {name: torch.cat([batch.images.flatten() for batch in _batches(split)]) for name, split in splits.items()}
    inputs = {name: _range(values) for name, values in images.items()}
    losses = read_scalars(folder, "train/loss")
    num_images = min(NUM_IMAGES, len(data))
    return Report(num_images, levels, frequencies_only, averaged, raw, annotations, inputs, losses)


@torch.no_grad()
def compare_losses(model: CCDM, data: AnnotatedDataset) -> tuple[list[Level], float]:
    """The cross entropies at the noise levels, and that of the class frequencies, on the first annotator's maps."""
    process, void = model.process, void_class(data)
    times = [int(abs(process.alpha_bar_cpu[1:] - level).argmin()) + 1 for level in LEVELS]
    times = sorted({*times, process.time_steps})
    x_0, logits, x_t = [], {t: list[Tensor]() for t in times}, {t: list[Tensor]() for t in times}
    for batch in _batches(data):
        images, labels = batch.images.to(model.device), batch.labels[:, 0].to(model.device)
        features, keys = model.features(images), image_keys(images)
        kept = torch.ones_like(labels, dtype=torch.bool) if void is None else labels != void
        x_0.append(labels[kept].long().cpu())
        for time in times:
            t = torch.full((len(images),), time, device=model.device)
            noisy = process.q_sample(labels, t, derive_key(keys, "x_t", time))
            logits[time].append(model(noisy, t, images, features).float().movedim(1, -1)[kept].cpu())
            x_t[time].append(noisy[kept].long().cpu())
    target, levels = torch.cat(x_0), []
    for time in times:
        joint = torch.zeros(process.num_states, process.num_classes)
        seen = torch.cat(x_t[time])
        joint.index_put_((seen, target), torch.ones(len(target)), accumulate=True)
        entropies = [cross_entropy(values, target) for values in (torch.cat(logits[time]), joint.log()[seen])]
        levels.append(Level(time, float(process.alpha_bar_cpu[time]), *map(float, entropies)))
    frequencies = target.bincount(minlength=process.num_classes) / len(target)
    return levels, float(-torch.xlogy(frequencies, frequencies).sum())


def compare_samples(model: CCDM, data: AnnotatedDataset) -> tuple[Samples, Samples]:
    """The model's samples, and the annotators' label maps."""
    predictor, void = model_samples(model, NUM_SAMPLES, SamplingConfig(), seed=0), void_class(data)
    rows, annotated, sizes = [], [], []
    for batch in _batches(data):
        comparison = Comparison(batch, predictor(batch), data.num_classes, void)
        distance = ged_from(comparison.pairs)
        labels = comparison.labels[comparison.present]
        rows.append((distance.ged.mean(), distance.diversity_samples.mean(), *_shape(comparison.samples.flatten(0, 1))))
        annotated.append((torch.zeros(()), distance.diversity_labels.mean(), *_shape(labels)))
        sizes.append(len(batch.names))
    weights = torch.tensor(sizes).double() / sum(sizes)
    of_model, of_annotators = (
        Samples(*(weights @ torch.tensor(parts).double()).tolist()) for parts in (rows, annotated)
    )
    return of_model, of_annotators


def verdicts(report: Report) -> Iterator[str]:
    """What is wrong, the most probable cause first."""
    train, val = report.inputs["train"], report.inputs["val"]
    if not 0.5 < (val[3] + 1e-6) / (train[3] + 1e-6) < 2 or abs(val[1] - train[1]) > train[3]:
        yield "The validation images have another range than the training images: check how both are scaled."
    if max(map(abs, (*train[:3], *val[:3]))) > 20:
        yield "The inputs are far outside of [-1, 1]: check image_mean and image_std of the dataset."
    *levels, last = report.levels
    if levels and all(level.network > level.without_image for level in levels[:2]):
        yield "The network does not use x_t yet, so that samples are noise or empty: train longer."
    elif levels and levels[-1].network > 0.97 * levels[-1].without_image:
        yield "At high noise the network does not use the image yet: train longer."
    elif last.network > 1.05 * report.frequencies_only:
        advice = "The KL divergence gives such times little weight; loss.cross_entropy=0.02 trains them."
        advice = advice if levels else "Train longer."
        yield f"At t = {last.t} the network predicts worse than the class frequencies. {advice}"
    if report.averaged.ged - report.raw.ged > 0.05:
        yield "The averaged weights lag behind: set polyak_alpha to null, or train longer."
    if report.averaged.edges > 2 * report.annotations.edges + 0.005:
        advice = "train longer, or sample with more steps" if levels else "a classifier draws every pixel on its own"
        yield f"The samples are noisier than the annotations: {advice}."
    if report.averaged.empty > report.annotations.empty + 0.25:
        yield "The samples are empty too often: train longer" + ("; loss.cross_entropy=0.02 helps." if levels else ".")
    if report.averaged.diversity < 0.5 * report.annotations.diversity:
        yield "The samples hardly differ: check that the loader returns all annotators."
    if _falling(report.losses):
        yield "The training loss is still falling: train longer."


def as_text(report: Report) -> str:
    """The page."""
    lines = ["Cross entropy of the annotation, in nats per 1,000 pixels, by noise level:", ""]
    lines.append(f"{'t':>6}{'alpha-bar':>11}{'network':>10}{'x_t alone':>12}")
    for level in report.levels:
        lines.append(f"{level.t:6d}{level.alpha_bar:11.3f}{1e3 * level.network:10.2f}{1e3 * level.without_image:12.2f}")
    lines += ["", f"Of the class frequencies: {1e3 * report.frequencies_only:.2f}. The last row is a classifier's.", ""]
    lines.append(f"{NUM_SAMPLES} samples of {report.num_images} validation images:")
    lines += ["", f"{'':>18}{'GED':>8}{'diversity':>11}{'empty':>8}{'edges':>9}"]
    rows = {"averaged weights": report.averaged, "raw weights": report.raw, "annotations": report.annotations}
    for name, row in rows.items():
        ged = "-" if row is report.annotations else f"{row.ged:.3f}"
        lines.append(f"{name:>18}{ged:>8}{row.diversity:11.3f}{row.empty:8.0%}{row.edges:9.2%}")
    lines += ["", "Inputs of the network:"]
    for name, (low, mean, high, std) in report.inputs.items():
        lines.append(f"{name:>8}: {low:.2f} to {high:.2f}, mean {mean:.2f}, standard deviation {std:.2f}")
    if report.losses:
        curve = report.losses[:: max(1, len(report.losses) // 6)]
        lines += ["", "Training loss: " + ", ".join(f"{loss:.3g} (step {step})" for step, loss in curve)]
    found = list(verdicts(report)) or ["Nothing conspicuous."]
    lines += ["", "Verdict, the most probable cause first:"]
    lines += [textwrap.fill(text, 100, initial_indent="- ", subsequent_indent="  ") for text in found]
    return "\n".join(lines)


def _batches(data: AnnotatedDataset) -> Iterator[EvaluationBatch]:
    return iter(evaluation_batches(data, evenly_spaced_indices(len(data), NUM_IMAGES), BATCH_SIZE, workers=0))


def _shape(maps: Tensor) -> tuple[Tensor, Tensor]:
    """Share of empty label maps (n x H x W), and of neighbouring pixels of different classes."""
    empty = (maps == 0).flatten(1).all(1).double().mean()
    down, right = (maps.diff(dim=dim) != 0 for dim in (1, 2))
    return empty, torch.cat([down.flatten(), right.flatten()]).double().mean()


def _range(values: Tensor) -> tuple[float, float, float, float]:
    return float(values.min()), float(values.mean()), float(values.max()), float(values.std())


def _falling(losses: Sequence[tuple[int, float]]) -> bool:
    """Whether the last fifth of a curve is more than a tenth below the fifth before."""
    fifth = len(losses) // 5
    if fifth < 2:
        return False
    before, last = ([loss for _, loss in losses[part]] for part in (slice(-2 * fifth, -fifth), slice(-fifth, None)))
    return sum(last) < 0.9 * sum(before)


if __name__ == "__main__":
    run_script(main, __doc__)
