"""Time and memory of several implementations of the same computation."""

import ctypes
import gc
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

Implementation = Callable[[], Any]

_STATUS, _CLEAR, _RESET_PEAK = Path("/proc/self/status"), Path("/proc/self/clear_refs"), "5"


class Measurement(NamedTuple):
    """Median wall-clock time, median CPU time over all threads, and peak memory in bytes (None: not known)."""

    seconds: float
    cpu_seconds: float
    memory: int | None


def compare(implementations: Sequence[Implementation], device: torch.device, repeats: int) -> list[Measurement]:
    """Run the implementations alternately, so that a slow phase of the machine affects all of them."""
    for run in implementations:
        run()
    memory = [peak_memory(run, device) for run in implementations]
    times = [[_time(run, device) for run in implementations] for _ in range(repeats)]
    medians = ([statistics.median(column) for column in zip(*runs, strict=True)] for runs in zip(*times, strict=True))
    return [Measurement(wall, cpu, peak) for (wall, cpu), peak in zip(medians, memory, strict=True)]


def peak_flops(device: torch.device, dtype: torch.dtype, size: int = 2048) -> float:
    """Operations per second of the fastest of 5 products of two size x size matrices, after one to warm up."""
    matrix = torch.randn(size, size, device=device).to(dtype)
    matrix @ matrix
    return 2 * size**3 / min(_time(lambda: matrix @ matrix, device)[0] for _ in range(5))


def peak_memory(run: Implementation, device: torch.device) -> int | None:
    """Peak memory of a call in bytes, above what was in use before; None on CPUs without Linux's /proc."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        run()
        return torch.cuda.max_memory_allocated(device) - before
    if not _CLEAR.exists():
        return None
    ctypes.CDLL(None).malloc_trim(0)
    _CLEAR.write_text(_RESET_PEAK)
    before = _process_memory("VmRSS")
    run()
    return _process_memory("VmHWM") - before


def _time(run: Implementation, device: torch.device) -> tuple[float, float]:
    synchronize = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    synchronize()
    start, cpu_start = time.perf_counter(), time.process_time()
    run()
    synchronize()
    return time.perf_counter() - start, time.process_time() - cpu_start


def _process_memory(field: str) -> int:
    return 1024 * int(_STATUS.read_text().partition(f"{field}:")[2].split()[0])
