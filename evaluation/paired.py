"""Fewer steps beside many: how much a sampler loses, image by image."""

from collections.abc import Sequence
from typing import NamedTuple

from evaluation.evaluate import Entry
from metrics import Interval, paired_bootstrap_interval

PAIRED = ("ged", "hm_iou")
"""The measures that are compared image by image."""


class Difference(NamedTuple):
    """A measure of one entry less that of another on the same images, with its paired 95 % bootstrap interval."""

    reference: str
    interval: Interval


def most_steps(entries: Sequence[Entry]) -> Entry | None:
    """The entry that others are compared with: of those with other steps, the first that takes the most."""
    return max((entry for entry in entries if entry.kind == "sweep"), key=_steps, default=None)


def differences(entry: Entry, reference: Entry) -> dict[str, Difference]:
    """Each of `PAIRED` of one entry less that of the other; images of one patient are drawn together."""
    (count,) = entry.scores.counts
    groups = [row["group"] for row in entry.scores.rows]

    def difference(measure: str) -> Difference:
        here, there = (one.scores.values(measure, count) for one in (entry, reference))
        return Difference(reference.name, paired_bootstrap_interval(here, there, groups))

    return {measure: difference(measure) for measure in PAIRED}


def _steps(entry: Entry) -> int:
    return (entry.sampling.steps if entry.sampling else None) or 0
