"""What can be evaluated: the model, its samples fused into one map, the oracle and the baselines."""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from datasets import KnownDistribution
from datasets.loading import EvaluationBatch
from diffusion.samplers import SamplingConfig, one_hot_of_most_probable
from metrics import label_frequencies
from models import CCDM, SampleChunk
from utils.noise import seed_from


class Prediction(NamedTuple):
    """Predicted label maps and class probabilities of a batch."""

    labels: Tensor  # n label maps per image, uint8, B x n x H x W
    probabilities: Tensor  # their mean class probabilities, B x C x H x W
    from_annotators: bool = False  # the annotators' own mean, so that comparing the two means says nothing


class FusedPrediction(NamedTuple):
    """Samples fused into one map per image, for each of N numbers of samples: B x N x C x H x W, see `fuse`."""

    num_samples: Sequence[int]
    maps: Tensor


Predictor = Callable[[EvaluationBatch], Prediction]
FusedPredictor = Callable[[EvaluationBatch], FusedPrediction]


def model_samples(
    model: CCDM, num_samples: int, sampling: SamplingConfig, seed: int, max_batch_size: int | None = None
) -> Predictor:
    """`num_samples` samples of the model for every image."""

    def predict(batch: EvaluationBatch) -> Prediction:
        samples = model.sample(batch.images, num_samples, sampling, seed, max_batch_size=max_batch_size)
        return Prediction(samples.labels.cpu(), samples.probabilities.cpu())

    return predict


def fused_samples(
    model: CCDM,
    num_samples: Sequence[int],
    sampling: SamplingConfig,
    seed: int,
    max_batch_size: int | None = None,
    *,
    void: int | None,
    strategy: str = "confidence",
) -> FusedPredictor:
    """Samples of the model, fused as in `fuse`."""

    def predict(batch: EvaluationBatch) -> FusedPrediction:
        chunks = model.iter_samples(batch.images, max(num_samples), sampling, seed, max_batch_size=max_batch_size)
        maps = fuse(chunks, len(batch.images), num_samples, void, strategy)
        if maps.is_cuda:
            torch.cuda.synchronize(maps.device)  # the caller measures the time
        return FusedPrediction(num_samples, maps)

    return predict


def oracle(dataset: KnownDistribution, num_samples: int, seed: int = 0) -> Predictor:
    """A perfect model: new samples of the true distribution, and its exact probabilities."""

    def predict(batch: EvaluationBatch) -> Prediction:
        noise_seed, indices = seed_from("oracle", seed), batch.indices.tolist()
        labels = torch.stack([dataset.draw_labels(index, num_samples, noise_seed) for index in indices])
        return Prediction(labels, torch.stack([dataset.label_probabilities(index) for index in indices]).float())

    return predict


def majority_vote(num_classes: int) -> Predictor:
    """One label map: the class that most of the image's own annotators chose; in a tie, the lowest."""

    def predict(batch: EvaluationBatch) -> Prediction:
        frequencies = label_frequencies(batch.labels, num_classes, batch.present)
        return Prediction(frequencies.argmax(1, keepdim=True).to(torch.uint8), frequencies, from_annotators=True)

    return predict


def always_empty(num_classes: int) -> Predictor:
    """One label map, all background."""

    def predict(batch: EvaluationBatch) -> Prediction:
        labels = torch.zeros_like(batch.labels[:, :1])
        return Prediction(labels, label_frequencies(labels, num_classes))

    return predict


VOTES: dict[str, Callable[[Tensor], Tensor]] = {
    "confidence": lambda probabilities: probabilities,
    "majority": one_hot_of_most_probable,
}
"""What a sample contributes to the fused map, given its class probabilities (M x C x H x W)."""


def fuse(
    chunks: Iterable[SampleChunk], num_images: int, num_samples: Sequence[int], void: int | None, strategy: str
) -> Tensor:
    """Fuse the first n samples of every image, for every n of `num_samples`, from one set of samples.

    The samples between one n and the next share a map, so that memory does not grow with the number of samples.

    Args:
        chunks: the samples of B = `num_images` images, in any order.
        num_samples: numbers of samples, ascending.
        void: class that must not be predicted.
        strategy: "confidence", the mean of the probabilities; or "majority", the share of the samples in which a class
            is the most probable one.

    Returns:
        Values in [0, 1], and -1 for `void`: B x len(num_samples) x C x H x W.
    """
    parts: Tensor | None = None
    for chunk in chunks:
        probabilities = chunk.probabilities
        if void is not None:
            probabilities = probabilities.index_fill(1, torch.tensor(void, device=probabilities.device), -1)
        maps = VOTES[strategy](probabilities)
        if parts is None:
            parts = maps.new_zeros((num_images * len(num_samples), *maps.shape[1:]))
        part = torch.bucketize(chunk.sample_index, torch.tensor(num_samples, device=maps.device), right=True)
        parts.index_add_(0, chunk.image_index * len(num_samples) + part, maps)
    assert parts is not None, "no samples"
    counts = torch.tensor(num_samples, device=parts.device)[:, None, None, None]
    fused = parts.unflatten(0, (num_images, len(num_samples))).cumsum(1) / counts
    if void is not None:
        fused[:, :, void] = -1
    return fused


def fused_label_map(fused: Tensor, size: Sequence[int]) -> Tensor:
    """The most probable class (in a tie, the lowest) of a fused map, C x H x W, resized bilinearly before the arg max:
    int64, of height and width `size`."""
    if fused.shape[1:] != tuple(size):
        fused = functional.interpolate(fused[None], tuple(size), mode="bilinear", align_corners=False)[0]
    return fused.argmax(0)
