"""Batches of images dealt out to the processes of a run, so that the results are the same for any number of them."""

import math
from collections.abc import Callable, Sequence

from tqdm import tqdm

from datasets import AnnotatedDataset
from datasets.loading import EvaluationBatch, evaluation_batches
from evaluation.cache import Row, RowStore
from utils.distributed import all_gather_objects, is_main, shard, world_size


def fill(
    store: RowStore,
    rows_of: Callable[[EvaluationBatch], list[Row]],
    dataset: AnnotatedDataset,
    indices: Sequence[int],
    batch_size: int,
    workers: int,
    *,
    title: str | None = None,
    between: Callable[[], None] | None = None,
) -> None:
    """Add the rows of the images of `indices` to the store of every process, batch by batch.

    Args:
        rows_of: makes the rows of a batch; it is called for the batches of this process.
        title: shows progress under that name.
        between: called before every batch, by all processes alike.
    """
    own = iter(evaluation_batches(dataset, list(indices), batch_size, workers, shard()))
    rounds = math.ceil(len(indices) / batch_size / world_size())
    for _ in tqdm(range(rounds), desc=title, disable=title is None or not is_main(), leave=False):
        if between is not None:
            between()
        batch = next(own, None)
        for rows in all_gather_objects([] if batch is None else rows_of(batch)):
            if rows:
                store.add(rows)
