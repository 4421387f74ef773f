"""A data loader of whole batches whose worker processes report a `UserError` as a message instead of a traceback."""

from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

import torch
from torch.utils.data import DataLoader, Dataset

from utils.errors import UserError

Batch = TypeVar("Batch")


class BatchLoader(DataLoader[Batch]):
    """A data loader that raises a `UserError` of a worker process with its message unchanged."""

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]  # wider than PyTorch's private class
        for batch in super().__iter__():
            if isinstance(batch, UserError):
                raise batch
            yield batch


class BatchDataset(Dataset[Any]):
    """Maps the keys of a batch to the batch. Errors are returned, since PyTorch would add a worker's traceback."""

    def __getitem__(self, keys: Any) -> Any:
        try:
            return self.batch(keys)
        except UserError as error:
            return error
        except OSError as error:
            return UserError(f"the data cannot be read: {error}")

    def batch(self, keys: Any) -> Any:
        """The batch of these keys."""
        raise NotImplementedError


def make_loader(dataset: BatchDataset, keys: Iterable[Any], workers: int, pin_memory: bool) -> BatchLoader[Any]:
    """Load a batch for every element of `keys`, in `workers` processes, or in this one if there are none."""
    pin_memory = pin_memory and torch.cuda.is_available()
    return BatchLoader(dataset, batch_size=None, sampler=keys, num_workers=workers, pin_memory=pin_memory)
