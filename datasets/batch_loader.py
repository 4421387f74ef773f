"""PyTorch's data loader with whole batches, whose processes end with a message and not with a traceback."""

from collections.abc import Iterable, Iterator
from typing import Any, Generic, TypeVar

import torch
from torch.utils.data import DataLoader, Dataset

from utils.errors import UserError

Batch = TypeVar("Batch")


class BatchLoader(Generic[Batch]):
    """What a data loader yields; a `UserError` of a worker process is raised here as it was raised there."""

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
    """Whole batches by what is asked for, or the error as a value: a worker would turn it into a traceback."""

    def __getitem__(self, wanted: Any) -> Any:
        try:
            return self.batch(wanted)
        except UserError as error:
            return error
        except OSError as error:
            return UserError(f"the data cannot be read: {error}")

    def batch(self, wanted: Any) -> Any:
        raise NotImplementedError


def make_loader(view: BatchDataset, wanted: Iterable[Any], workers: int, pin_memory: bool) -> BatchLoader[Any]:
    """The batches of `view` for every thing in `wanted`, made by that many worker processes."""
    return BatchLoader(
        DataLoader(
            view,
            batch_size=None,
            sampler=wanted,
            collate_fn=_unchanged,
            num_workers=workers,
            pin_memory=pin_memory and torch.cuda.is_available(),
        )
    )


def _unchanged(batch: Any) -> Any:
    return batch
