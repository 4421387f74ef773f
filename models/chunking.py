"""How many label maps go through the network together."""

from collections.abc import Callable, Iterator
from typing import TypeVar

import torch
from torch import Tensor, nn

Result = TypeVar("Result")

# On two CPU cores, chunks that fit into the caches were up to 4 times faster than 256 maps of 32 x 32, and four maps of
# 128 x 128 a fifth faster than one; with patches of 4 x 4 pixels, sixteen were a sixth faster than eight. CUDA has not
# been measured.
_PIXELS = {"cuda": 2**20, "cpu": 2**16}


def default_chunk_size(height: int, width: int, device: torch.device, patch_size: int = 1) -> int:
    """Number of label maps that keeps the device busy; more would take more memory but no less time."""
    return max(1, patch_size * _PIXELS.get(device.type, _PIXELS["cpu"]) // (height * width))


def chunk_size(
    network: nn.Module,
    size: tuple[int, int],
    device: torch.device,
    max_batch_size: int | None,
    tile: tuple[int, int] | None,
) -> int:
    """Label maps of a size per chunk. Those of images with tiles can be large, so that the default remains a bound."""
    default = default_chunk_size(*size, device, getattr(network, "patch_size", 1))
    if max_batch_size is None:
        return default
    return max_batch_size if tile is None else min(max_batch_size, default)


def run_in_chunks(run: Callable[[Tensor], Result], items: Tensor, size: int) -> Iterator[Result]:
    """Call `run` with `size` items at a time, and with half as many whenever the device runs out of memory."""
    while len(items) > 0:
        chunk = items[:size]
        result = _unless_out_of_memory(run, chunk)
        if result is None:
            size = len(chunk) // 2
            torch.cuda.empty_cache()
            continue
        yield result
        items = items[size:]


def _unless_out_of_memory(run: Callable[[Tensor], Result], chunk: Tensor) -> Result | None:
    try:
        return run(chunk)
    except torch.OutOfMemoryError:
        if len(chunk) == 1:
            raise
        return None
