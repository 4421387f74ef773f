"""Several samples of an image fused into one prediction, as they are drawn."""

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from datasets.loading import EvaluationBatch
from models import CCDM, SampleChunk, SamplingOptions
from utils.schema import Sampling, VoteStrategy

Fuser = Callable[[EvaluationBatch], Tensor]
"""Gives the fused maps of a batch, one for each number of samples: B x numbers x C' x H x W."""


def fused_samples(
    model: CCDM,
    counts: Sequence[int],
    kept: Sequence[int],
    strategy: VoteStrategy,
    sampling: Sampling,
    seed: int,
    max_batch_size: int | None,
) -> Fuser:
    """Draws of the model for every image, fused as in `fuse`."""
    device = model.process.alpha_bar.device

    def predict(batch: EvaluationBatch) -> Tensor:
        options = SamplingOptions(
            max(counts), sampling.steps, sampling.sampler, seed, eta=sampling.eta, max_batch_size=max_batch_size
        )
        packs = model.packs(batch.images.to(device), options)
        return fuse(packs, len(batch.images), counts, kept, strategy)

    return predict


def fuse(
    packs: Iterable[SampleChunk], num_images: int, counts: Sequence[int], kept: Sequence[int], strategy: VoteStrategy
) -> Tensor:
    """The first n samples of every image fused, for every n of `counts`, from one set of draws.

    Packs are added up as they come: the samples between one count and the next share a map, so that an image takes the
    memory of len(counts) maps, however many samples it has.

    Args:
        packs: the draws of `CCDM.packs`.
        num_images: B.
        counts: numbers of samples, rising.
        kept: the C' classes that are evaluated. The others (void) are cut before any arg max.
        strategy: "confidence", the mean of the probabilities; or "majority", the share of the samples in which a class
            is the most probable one.

    Returns:
        Values in [0, 1], at most 1 in sum over the classes, B x len(counts) x C' x H x W.
    """
    parts: Tensor | None = None
    for pack in packs:
        probabilities = pack.probabilities[:, list(kept)]
        maps = probabilities if strategy == "confidence" else _votes(probabilities)
        if parts is None:
            parts = maps.new_zeros((num_images * len(counts), *maps.shape[1:]))
        part = torch.bucketize(pack.number, torch.tensor(counts, device=maps.device), right=True)
        parts.index_add_(0, pack.of_image * len(counts) + part, maps)
    assert parts is not None, "no packs"
    numbers = torch.tensor(counts, device=parts.device)[:, None, None, None]
    return parts.unflatten(0, (num_images, len(counts))).cumsum(1) / numbers


def label_map(fused: Tensor, size: Sequence[int]) -> Tensor:
    """The most probable class of every pixel of a fused map at height and width `size`; of a tie, the lowest.

    Args:
        fused: C' x H x W. It is resized bilinearly, before the arg max.
        size: height and width.

    Returns:
        Positions 0 .. C'-1 among the classes kept, int64, height x width.
    """
    if fused.shape[1:] != tuple(size):
        fused = functional.interpolate(fused[None], tuple(size), mode="bilinear", align_corners=False)[0]
    return fused.argmax(0)


def _votes(probabilities: Tensor) -> Tensor:
    """One-hot maps of the most probable class."""
    return torch.zeros_like(probabilities).scatter_(1, probabilities.argmax(1, keepdim=True), 1)
