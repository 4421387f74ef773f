"""The definitions as slow loops over pairs and pixels, for the tests to compare with."""

import itertools
import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Map = NDArray[np.integer]


def random_maps(num_classes: int, shape: tuple[int, ...], seed: int = 0) -> Tensor:
    """Random label maps, some of which lack some classes."""
    rng = np.random.default_rng(seed)
    limits = rng.integers(1, num_classes + 1, size=(*shape[:2], 1, 1))
    return torch.from_numpy(rng.integers(0, limits, size=shape))


def iou(a: Map, b: Map, num_classes: int) -> float:
    scores = []
    for label in range(1, num_classes):
        union = ((a == label) | (b == label)).sum()
        scores.append(((a == label) & (b == label)).sum() / union if union else 1.0)
    return float(np.mean(scores))


def dice(a: Map, b: Map, num_classes: int) -> float:
    scores = []
    for label in range(1, num_classes):
        areas = (a == label).sum() + (b == label).sum()
        scores.append(2 * ((a == label) & (b == label)).sum() / areas if areas else 1.0)
    return float(np.mean(scores))


def ged(labels: Map, samples: Map, num_classes: int) -> float:
    def mean_distance(a: Map, b: Map) -> float:
        return float(np.mean([1 - iou(x, y, num_classes) for x in a for y in b]))

    return 2 * mean_distance(labels, samples) - mean_distance(labels, labels) - mean_distance(samples, samples)


def best_matching(labels: Map, samples: Map, num_classes: int, overlap=iou) -> float:  # type: ignore[no-untyped-def]
    """Mean overlap of the best of all permutations; keep the least common multiple small."""
    size = math.lcm(len(labels), len(samples))
    pairs = np.array([[overlap(a, b, num_classes) for b in samples] for a in labels])
    pairs = np.tile(pairs, (size // len(labels), size // len(samples)))
    return max(float(np.mean(pairs[np.arange(size), list(order)])) for order in itertools.permutations(range(size)))


def overlap_of_votes(labels: Map, samples: Map, num_classes: int, overlap=iou) -> float:  # type: ignore[no-untyped-def]
    votes = (np.eye(num_classes)[maps].sum(0).argmax(-1) for maps in (labels, samples))
    return float(overlap(*votes, num_classes))


def ncc(labels: Map, samples: Map, num_classes: int, eps: float = 1e-8) -> float:
    """S_NCC as PHiSeg writes it, from one-hot maps and cross entropies."""
    one_hot = np.eye(num_classes)

    def cross_entropy(target: NDArray[np.float64], source: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(-(target * np.log(source + eps)).sum(-1))

    hot_samples = one_hot[samples]
    uncertainty = np.mean([cross_entropy(hot_samples.mean(0), s) for s in hot_samples], 0)
    errors = [np.mean([cross_entropy(y, s) for s in hot_samples], 0) for y in one_hot[labels]]
    return float(np.mean([np.corrcoef(uncertainty.ravel(), error.ravel())[0, 1] for error in errors]))


def unbiased_ged(labels: Map, samples: Map, num_classes: int) -> float:
    def within(maps: Map) -> float:
        return float(np.mean([1 - iou(x, y, num_classes) for x, y in itertools.permutations(maps, 2)]))

    across = float(np.mean([1 - iou(x, y, num_classes) for x in labels for y in samples]))
    return 2 * across - within(labels) - within(samples)


def best_of(first: Map, second: Map, num_classes: int) -> float:
    return float(np.mean([max(dice(x, y, num_classes) for y in second) for x in first]))


def coverage(labels: Map, samples: Map, num_classes: int, threshold: float) -> float:
    return float(np.mean([any(iou(y, x, num_classes) >= threshold for x in samples) for y in labels]))


def diversity_agreement(labels: Map, samples: Map, num_classes: int) -> float:
    y, x = ([1 - dice(a, b, num_classes) for a, b in itertools.combinations(maps, 2)] for maps in (labels, samples))
    return 1 - (abs(min(y) - min(x)) + abs(max(y) - max(x))) / 2


def combined_sensitivity(labels: Map, samples: Map, num_classes: int) -> float:
    scores = []
    for label in range(1, num_classes):
        seen = set(zip(*np.nonzero((labels == label).any(0)), strict=True))
        drawn = set(zip(*np.nonzero((samples == label).any(0)), strict=True))
        scores.append(len(seen & drawn) / len(seen) if seen else 1.0)
    return float(np.mean(scores))


def rectangular_matching(labels: Map, samples: Map, num_classes: int) -> float:
    short, long = sorted((labels, samples), key=len)
    chosen = itertools.permutations(range(len(long)), len(short))
    return max(
        float(np.mean([dice(x, long[k], num_classes) for x, k in zip(short, places, strict=True)])) for places in chosen
    )


def soft_dice(labels: Map, samples: Map, num_classes: int) -> float:
    scores = []
    for threshold in (0.1, 0.3, 0.5, 0.7, 0.9):
        for label in range(1, num_classes):
            a, b = ((maps == label).astype(np.float32).mean(0) >= np.float32(threshold) for maps in (labels, samples))
            scores.append(dice(a.astype(int), b.astype(int), 2))
    return float(np.mean(scores))


def area_crps(labels: Map, samples: Map, num_classes: int) -> float:
    """The integral of the squared difference of the distribution functions, on a fine grid."""
    grid = np.arange(labels[0].size + 1)
    scores = []
    for label in range(1, num_classes):
        ours = np.mean([(sample == label).sum() <= grid for sample in samples], axis=0)
        scores += [((ours - ((map_ == label).sum() <= grid)) ** 2).sum() for map_ in labels]
    return float(100 * np.mean(scores) / labels[0].size)
