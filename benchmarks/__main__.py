"""Time and memory beside the textbook way: python -m benchmarks [--sizes lidc] [--cases loss] [--quick] ..."""

import argparse
import json
import os
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.cases import CASES
from benchmarks.measure import Measurement, compare
from benchmarks.problems import QUICK_SIZES, SIZES, Size
from utils.device import choose_device

_CHAINS = (250, 100, 50, 25, 10)
_TEXTBOOK_STEPS = 250


def main(argv: Sequence[str] | None = None) -> None:
    """Measure what the command line asks for; print one line a case, and write all of it as JSON."""
    options = _options(argv)
    device = choose_device(options.device)
    sizes = QUICK_SIZES if options.quick else {name: SIZES[name] for name in options.sizes}
    about = _machine(device)
    print("  ".join(f"{name}: {value}" for name, value in about.items()))
    print(f"{'':42s}{'textbook':>22s}{'ours':>22s}{'times less':>16s}")
    rows = []
    for size in sizes.values():
        for name in options.cases:
            measured = compare(CASES[name](size, device), device, 1 if options.quick else options.repeats)
            rows.append(_row(name, size, measured))
            print(_line(rows[-1]), flush=True)
            if name == "sampling-step":
                rows[-1]["image"] = _seconds_per_image(size, measured)
                print(_image_line(rows[-1]["image"]), flush=True)
    options.output.write_text(json.dumps({"machine": about, "rows": rows}, indent=1), encoding="utf-8")


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Time and memory beside the textbook way")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--repeats", type=int, default=5, help="measurements behind every median")
    parser.add_argument("--quick", action="store_true", help="a tiny size, once: whether it runs at all")
    parser.add_argument("--output", type=Path, default=Path("benchmarks.json"), help="the JSON file")
    return parser.parse_args(argv)


def _machine(device: torch.device) -> dict[str, Any]:
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    load = round(os.getloadavg()[0], 1)
    return {"device": name, "threads": torch.get_num_threads(), "torch": torch.__version__, "load at start": load}


def _row(name: str, size: Size, measured: dict[str, Measurement]) -> dict[str, Any]:
    return {"case": name, "size": str(size)} | {way: values._asdict() for way, values in measured.items()}


def _line(row: dict[str, Any]) -> str:
    theirs, ours = row["textbook"], row["ours"]
    texts = [f"{way['seconds'] * 1e3:11.2f} ms {_mebibytes(way['memory']):>7s}" for way in (theirs, ours)]
    ratios = f"{theirs['seconds'] / ours['seconds']:8.1f} busy {theirs['busy'] / ours['busy']:.1f}"
    return f"{row['case']:14s}{row['size']:28s}{texts[0]:>22s}{texts[1]:>22s}{ratios}"


def _mebibytes(memory: int | None) -> str:
    return "-" if memory is None else f"{memory / 2**20:.0f} MiB"


def _seconds_per_image(size: Size, measured: dict[str, Measurement]) -> dict[str, float]:
    """Of a chain of so many steps: the time of a step times their number, shared by the batch."""
    textbook, ours = (measured[way].seconds / size.batch for way in ("textbook", "ours"))
    return {f"textbook, {_TEXTBOOK_STEPS} steps": _TEXTBOOK_STEPS * textbook} | {
        f"{steps} steps": steps * ours for steps in _CHAINS
    }


def _image_line(seconds: dict[str, float]) -> str:
    return "  seconds per image: " + "; ".join(f"{name}: {value:.2f}" for name, value in seconds.items())


if __name__ == "__main__":
    main()
