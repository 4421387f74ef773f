"""Replaying a function's kernels on a CUDA device, which takes less time than launching them one by one."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

WARM_UP = 4
"""Calls with tensors of the same shapes before they are recorded."""


class CudaGraph:
    """Calls a function of tensors; on a CUDA device, its kernels are recorded and replayed.

    A step of training launches thousands of kernels, and launching them can take longer than running them. The function
    must not wait for the device, and what else it reads must keep its place in memory. It is recorded
    when it was called `WARM_UP` times with tensors of the same shapes; other shapes run as usual.

    Args:
        enabled: whether to record at all.
    """

    def __init__(self, enabled: bool = False) -> None:
        self.enabled = enabled
        self._graph: torch.cuda.CUDAGraph | None = None
        self._inputs: list[Tensor] = []
        self._output: Tensor
        self._recorded: object = None
        self._seen: tuple[object, int] = (None, 0)

    def __deepcopy__(self, memo: dict[int, Any]) -> "CudaGraph":
        return CudaGraph(self.enabled)

    def run(self, function: Callable[..., Tensor], *arguments: Tensor | None) -> Tensor:
        """What the function returns for these arguments."""
        if not self.enabled:
            return function(*arguments)
        tensors = [argument for argument in arguments if argument is not None]
        shapes = [None if x is None else (x.shape, x.dtype, x.device, x.stride()) for x in arguments]
        if shapes != self._recorded:
            number = self._seen[1] + 1 if self._seen[0] == shapes else 1
            self._seen = shapes, number
            if number <= WARM_UP:
                return _on_side_stream(function, arguments)
            self._record(function, arguments)
            self._recorded = shapes
        assert self._graph is not None
        for stored, tensor in zip(self._inputs, tensors, strict=True):
            stored.copy_(tensor, non_blocking=True)
        self._graph.replay()
        return self._output.clone()

    def _record(self, function: Callable[..., Tensor], arguments: tuple[Tensor | None, ...]) -> None:
        """Record the kernels, without running them."""
        self._graph = self._recorded = None  # frees the memory of the last recording
        places = [None if argument is None else argument.clone() for argument in arguments]
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            self._output = function(*places)
        self._inputs, self._graph = [place for place in places if place is not None], graph


def _on_side_stream(function: Callable[..., Tensor], arguments: tuple[Tensor | None, ...]) -> Tensor:
    """Run as in a recording, which is not made on the default stream."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        output = function(*arguments)
    torch.cuda.current_stream().wait_stream(stream)
    return output
