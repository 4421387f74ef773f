"""A data loader of whole batches whose worker processes report a `UserError` as a message instead of a traceback."""

from collections.abc import Iterable, Iterator
from typing import Any, Generic, TypeVar

import torch
from torch.utils.data import DataLoader, Dataset

from utils.errors import UserError

Batch = TypeVar("Batch")


class BatchLoader(Generic[Batch]):
    """The batches of a data loader; a `UserError` of a worker process is raised here with its message unchanged."""

    def __init__(self, loader: DataLoader[Any]) -> None:
        self._loader = loader

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self) -> Iterator[Batch]:
        for batch in self._loader:
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
    return BatchLoader(
        DataLoader(
            dataset,
            batch_size=None,
            sampler=keys,
            collate_fn=_unchanged,
            num_workers=workers,
            pin_memory=pin_memory and torch.cuda.is_available(),
        )
    )


def _unchanged(batch: Any) -> Any:
    return batch
