"""What can be scored: anything that gives label maps for a batch of images."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from datasets import KnownDistribution
from datasets.loading import EvaluationBatch
from metrics import label_frequencies
from models import CCDM
from utils.noise import seed_from
from utils.schema import Sampling


class Prediction(NamedTuple):
    """Label maps for each image (uint8, B x n x H x W) and the class probabilities they imply (B x C x H x W)."""

    labels: Tensor
    probabilities: Tensor


CLASSIFIER_ARGMAX = Sampling(steps=1, last_step="argmax")
CLASSIFIER_DRAWS = Sampling(steps=1, last_step="draw")
"""How a pixel-wise classifier is read: the most probable class of each pixel, or independent draws at each pixel."""

Predictor = Callable[[EvaluationBatch], Prediction]


def model_samples(
    model: CCDM, num_samples: int, sampling: Sampling, seed: int, max_batch_size: int | None
) -> Predictor:
    """`num_samples` draws of the model for every image; a pixel-wise classifier is drawn from at each pixel."""
    device = model.process.alpha_bar.device
    if model.is_classifier and sampling.steps != 1:
        sampling = CLASSIFIER_DRAWS

    def predict(batch: EvaluationBatch) -> Prediction:
        drawn = model.sample(
            batch.images.to(device),
            num_samples,
            sampling.steps,
            sampling.sampler,
            seed,
            eta=sampling.eta,
            last_step=sampling.last_step,
            max_batch_size=max_batch_size,
        )
        return Prediction(drawn.labels.cpu(), drawn.probabilities.cpu())

    return predict


def oracle(dataset: KnownDistribution, num_samples: int, seed: int) -> Predictor:
    """`num_samples` fresh draws from the true distribution, and its exact probabilities: a perfect model."""

    def predict(batch: EvaluationBatch) -> Prediction:
        draws_seed, indices = seed_from("oracle", seed), batch.indices.tolist()
        labels = torch.stack([dataset.draw_labels(index, num_samples, draws_seed) for index in indices])
        return Prediction(labels, torch.stack([dataset.label_probabilities(index) for index in indices]).float())

    return predict


def always_empty(num_classes: int) -> Predictor:
    """One label map, all background."""

    def predict(batch: EvaluationBatch) -> Prediction:
        labels = torch.zeros_like(batch.labels[:, :1])
        return Prediction(labels, label_frequencies(labels, num_classes))

    return predict


def majority_vote(num_classes: int) -> Predictor:
    """One label map, the class that most of the image's own annotators chose at each pixel; of a tie, the lowest."""

    def predict(batch: EvaluationBatch) -> Prediction:
        frequencies = label_frequencies(batch.labels, num_classes, batch.present)
        return Prediction(frequencies.argmax(1, keepdim=True).to(torch.uint8), frequencies)

    return predict
