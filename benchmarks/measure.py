"""Time and memory of several ways of computing the same, side by side."""

import ctypes
import gc
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch

Way = Callable[[], Any]

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_RESET_PEAK = "5"


class Measurement(NamedTuple):
    """Medians of the time and, added to what was there before, the most memory in bytes (None: cannot be told).

    `seconds` passed on the clock, `busy` is the processor's time over all threads: another program that takes its share
    of the machine shows in the first alone.
    """

    seconds: float
    busy: float
    memory: int | None


def compare(ways: Mapping[str, Way], device: torch.device, repeats: int) -> dict[str, Measurement]:
    """Measure ways by turns, `repeats` times each after a warm-up, so that what slows the machine slows all alike."""
    for way in ways.values():
        way()
    memory = {name: peak_memory(way, device) for name, way in ways.items()}
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, way in ways.items():
            times[name].append(_timed(way, device))
    medians = {name: [statistics.median(column) for column in zip(*rows, strict=True)] for name, rows in times.items()}
    return {name: Measurement(seconds, busy, memory[name]) for name, (seconds, busy) in medians.items()}


def peak_memory(way: Way, device: torch.device) -> int | None:
    """The most memory that `way` takes, in bytes, above what is in use before; on the CPU known under Linux only."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        way()
        return torch.cuda.max_memory_allocated(device) - before
    if not _CLEAR.exists():
        return None
    ctypes.CDLL(None).malloc_trim(0)
    _CLEAR.write_text(_RESET_PEAK)
    before = _status("VmRSS")
    way()
    return _status("VmHWM") - before


def _timed(way: Way, device: torch.device) -> tuple[float, float]:
    _wait_for(device)
    start, start_busy = time.perf_counter(), time.process_time()
    way()
    _wait_for(device)
    return time.perf_counter() - start, time.process_time() - start_busy


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _status(field: str) -> int:
    line = next(line for line in _STATUS.read_text().splitlines() if line.startswith(field))
    return 1024 * int(line.split()[1])
