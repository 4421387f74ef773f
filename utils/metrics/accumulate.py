"""Results of a whole data set, gathered over batches and processes."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchmetrics import Metric


class ImageTable(Metric):
    """One row an image, an integer key and named numbers, whatever the batch size, order and number of processes.

    `compute` gathers the rows of all processes and sorts them by key. Rows of the same key are one image that was dealt
    twice, as a distributed sampler does to even out its shares: the first is kept.

    >>> table = ImageTable(["ged16", "hm_iou16"])
    >>> table.update(torch.tensor([7, 3]), {"ged16": torch.tensor([0.25, 0.5]), "hm_iou16": torch.tensor([0.75, 0.5])})
    >>> table.update(torch.tensor([5, 3]), {"ged16": torch.tensor([0.0, 0.5]), "hm_iou16": torch.tensor([1.0, 0.5])})
    >>> {name: column.tolist() for name, column in table.compute().items()}
    {'key': [3, 5, 7], 'ged16': [0.5, 0.0, 0.25], 'hm_iou16': [0.5, 1.0, 0.75]}
    """

    full_state_update = False
    keys: list[Tensor]
    rows: list[Tensor]

    def __init__(self, names: Sequence[str], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not names or "key" in names or len(set(names)) < len(names):
            raise ValueError(f"names are {list(names)}: expected different names, at least one, none of them 'key'")
        self.names = tuple(names)
        self.add_state("keys", default=[], dist_reduce_fx="cat")
        self.add_state("rows", default=[], dist_reduce_fx="cat")
        self.reset()

    def reset(self) -> None:
        """Forget all rows."""
        super().reset()
        # So that a process without images has a table of the right shape and type to send.
        self.keys.append(torch.empty(0, dtype=torch.int64, device=self.device))
        self.rows.append(torch.empty(0, len(self.names), dtype=torch.float64, device=self.device))

    def update(self, keys: Tensor, values: Mapping[str, Tensor]) -> None:
        """Add B images: `keys` (int64, B) unique in the data set, and a vector of B numbers for each name."""
        if set(values) != set(self.names):
            raise ValueError(f"values are named {sorted(values)}: expected {sorted(self.names)}")
        if keys.dtype != torch.int64 or keys.ndim != 1:
            raise ValueError(f"keys are {keys.dtype} {tuple(keys.shape)}: expected int64, one key for each image")
        for name, column in values.items():
            if column.shape != keys.shape:
                raise ValueError(f"{name} has shape {tuple(column.shape)}: expected {tuple(keys.shape)}, as keys")
        self.keys.append(keys.to(self.device))
        self.rows.append(torch.stack([values[name].detach().to(self.device, torch.float64) for name in self.names], 1))

    def compute(self) -> dict[str, NDArray[Any]]:
        """Columns by name, sorted by `key` (int64, n): float64, n each."""
        keys, rows = (_concatenated(state).cpu().numpy() for state in (self.keys, self.rows))
        keys, first = np.unique(keys, return_index=True)
        return {"key": keys, **dict(zip(self.names, rows[first].T, strict=True))}


class RunningSum(Metric):
    """Sum over batches and processes of tensors of one shape: confusion matrices, calibration bins.

    Every image must be dealt to one process once; a sampler that repeats images to even out its shares counts them
    twice.

    >>> total = RunningSum((2, 2), torch.int64)
    >>> total.update(torch.tensor([[1, 0], [2, 3]]))
    >>> total.update(torch.tensor([[1, 1], [0, 0]]))
    >>> total.compute()
    tensor([[2, 1],
            [2, 3]])
    """

    full_state_update = False
    total: Tensor

    def __init__(self, shape: Sequence[int], dtype: torch.dtype = torch.float64, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_state("total", default=torch.zeros(tuple(shape), dtype=dtype), dist_reduce_fx="sum")

    def update(self, addend: Tensor) -> None:
        """Add a tensor of the shape and dtype of the sum."""
        if addend.shape != self.total.shape or addend.dtype != self.total.dtype:
            raise ValueError(
                f"addend is {addend.dtype} {tuple(addend.shape)}: expected {self.total.dtype} {tuple(self.total.shape)}"
            )
        self.total += addend.to(self.total.device)

    def compute(self) -> Tensor:
        """The sum."""
        return self.total


def _concatenated(state: list[Tensor] | Tensor) -> Tensor:
    """A list state, which is one tensor already once processes have been gathered."""
    return state if isinstance(state, Tensor) else torch.cat(state)
