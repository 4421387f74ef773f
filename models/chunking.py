"""How many label maps go through the network together."""

from collections.abc import Callable, Iterator
from typing import TypeVar

import torch
from torch import Tensor, nn

Result = TypeVar("Result", bound=Tensor | tuple[Tensor, ...])

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


def run_in_chunks(run: Callable[[Tensor], Result], items: Tensor, size: int, fill: bool = False) -> Iterator[Result]:
    """Call `run` with `size` items at a time, and with half as many whenever the device runs out of memory.

    With `fill`, a smaller last chunk is filled up by repeating its last item, and the result is cut: for another size,
    a compiled network would have to be compiled again.

    Args:
        run: returns a tensor, or a named tuple of tensors, with one row per item.
        items: what to run on, by rows.
        size: rows per call.
        fill: whether all calls have the same number of rows.
    """
    size = min(size, len(items))
    while len(items) > 0:
        chunk = items[:size]
        filled = chunk[torch.arange(size, device=items.device).clamp(max=len(chunk) - 1)] if fill else chunk
        result = _unless_out_of_memory(run, filled)
        if result is None:
            size = len(filled) // 2
            torch.cuda.empty_cache()
            continue
        yield _first_rows(result, len(chunk)) if fill else result
        items = items[size:]


def _first_rows(result: Result, number: int) -> Result:
    if isinstance(result, Tensor):
        return result[:number]  # type: ignore[return-value]  # the same class
    return type(result)(*(part[:number] for part in result))


def _unless_out_of_memory(run: Callable[[Tensor], Result], chunk: Tensor) -> Result | None:
    try:
        return run(chunk)
    except torch.OutOfMemoryError:
        if len(chunk) == 1:
            raise
        return None
