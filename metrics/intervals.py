"""Bootstrap intervals of means, in which the images of one patient are drawn together."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

_BATCH_ELEMENTS = 2**22  # resamples are drawn in batches of 32 MiB, whatever the number of images


class Interval(NamedTuple):
    """A mean and the ends of its interval."""

    mean: float
    low: float
    high: float


def bootstrap_interval(
    values: ArrayLike, groups: ArrayLike | None = None, num_resamples: int = 2000, seed: int = 0
) -> Interval:
    """95 % percentile bootstrap interval of the mean.

    Efron & Tibshirani, *An Introduction to the Bootstrap*, 1993, ch. 13. Images of one patient are not independent, so
    whole groups are drawn with replacement (the cluster bootstrap); a resample's mean is over the images of the groups
    drawn. Without `groups` every image is a group of its own. The draws depend only on `seed` and the number of groups,
    which are sorted first.

    Args:
        values: one finite number per image, length n.
        groups: the patient of each image (integers or strings), length n.
        num_resamples: number of resamples.
        seed: seed of the resampling.

    Returns:
        Mean of `values` and its interval, whose ends are NaN if there is only one group.

    >>> bootstrap_interval([0.0, 1.0, 0.0, 1.0], groups=["a", "a", "b", "b"])  # every patient has mean 1/2
    Interval(mean=0.5, low=0.5, high=0.5)
    >>> bootstrap_interval([0.0, 1.0], num_resamples=1000)  # means 0, 1/2, 1 with probabilities 1/4, 1/2, 1/4
    Interval(mean=0.5, low=0.0, high=1.0)
    """
    values = _finite_vector(values, "values")
    members = np.arange(len(values)) if groups is None else np.asarray(groups)
    if members.shape != values.shape:
        raise ValueError(f"groups has shape {members.shape}: expected {values.shape}, one group for each value")
    _, index, sizes = np.unique(members, return_inverse=True, return_counts=True)
    if len(sizes) == 1:
        return Interval(float(values.mean()), float("nan"), float("nan"))
    interval = stats.bootstrap(
        (np.bincount(index, values), sizes),
        lambda sums, sizes, axis: sums.sum(axis) / sizes.sum(axis),
        n_resamples=num_resamples,
        batch=max(1, _BATCH_ELEMENTS // len(sizes)),
        paired=True,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return Interval(float(values.mean()), float(interval.low), float(interval.high))


def paired_bootstrap_interval(a: ArrayLike, b: ArrayLike, groups: ArrayLike | None = None) -> Interval:
    """`bootstrap_interval` of mean(a - b), for two models evaluated on the same images in the same order.

    >>> paired_bootstrap_interval([0.75, 0.5, 1.0], [0.5, 0.25, 0.75])
    Interval(mean=0.25, low=0.25, high=0.25)
    """
    a, b = _finite_vector(a, "a"), _finite_vector(b, "b")
    if a.shape != b.shape:
        raise ValueError(f"a has {len(a)} values and b {len(b)}: expected the same images in the same order")
    return bootstrap_interval(a - b, groups)


def _finite_vector(values: ArrayLike, name: str) -> NDArray[np.float64]:
    vector = np.asarray(values, dtype=np.float64)
    if vector.ndim != 1 or vector.size == 0:
        raise ValueError(f"{name} has shape {vector.shape}: expected a non-empty vector, one number for each image")
    finite = np.isfinite(vector)
    if not finite.all():
        raise ValueError(f"{name}[{int(np.argmin(finite))}] is {vector[~finite][0]}: leave that image out of the mean")
    return vector
