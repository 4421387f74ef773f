"""Compare the library with its baseline: python -m benchmarks [--workloads lidc] [--cases loss] [--quick] ..."""

import argparse
import dataclasses
import json
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.cases import CASES, QUICK_WORKLOADS, WORKLOADS
from benchmarks.flops import operations
from benchmarks.measure import Measurement, compare, peak_flops
from utils.device import choose_device


def main(argv: Sequence[str] | None = None) -> None:
    """Run the selected benchmarks; print one line per case and write all results as JSON."""
    options = parse_arguments(argv)
    device = choose_device(options.device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    peak = peak_flops(device, getattr(torch, options.precision))
    machine = {
        "device": name, "threads": torch.get_num_threads(), "torch": torch.__version__, "precision": options.precision,
        "peak GFLOP/s": round(peak / 1e9),
    }  # fmt: skip
    print("  ".join(f"{key}: {value}" for key, value in machine.items()))
    print(f"{'':42s}{'baseline':>22s}{'optimised':>22s}{'speedup (CPU time)':>22s}{'GFLOP/s (of peak)':>20s}")
    rows: list[dict[str, Any]] = []
    for workload in QUICK_WORKLOADS if options.quick else (WORKLOADS[name] for name in options.workloads):
        for case in options.cases:
            sized = dataclasses.replace(workload, precision=options.precision)
            implementations = CASES[case](sized, device)
            baseline, optimised = compare(implementations, device, 1 if options.quick else options.repeats)
            flops = operations(implementations[1]) / optimised.seconds
            speed = f"{flops / 1e9:12.0f} ({flops / peak:.0%})" if flops else f"{'-':>12s}"
            print(f"{case:14s}{workload!s:28s}{_line(baseline, optimised)}{speed}", flush=True)
            measured = {"baseline": baseline._asdict(), "optimised": optimised._asdict(), "flops_per_second": flops}
            rows.append({"case": case, "workload": str(workload), **measured})
    options.output.write_text(json.dumps({"machine": machine, "rows": rows}, indent=1), encoding="utf-8")


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Time and memory against the baseline")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps")
    parser.add_argument("--precision", default="float32", choices=["float32", "bfloat16"], help="of both networks")
    parser.add_argument("--workloads", nargs="+", choices=WORKLOADS, default=list(WORKLOADS))
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--repeats", type=int, default=5, help="runs per median")
    parser.add_argument("--quick", action="store_true", help="a tiny workload, once: a smoke test")
    parser.add_argument("--output", type=Path, default=Path("benchmarks.json"), help="the JSON file")
    return parser.parse_args(argv)


def _line(baseline: Measurement, optimised: Measurement) -> str:
    columns = ""
    for seconds, _, memory in (baseline, optimised):
        mebibytes = "-" if memory is None else f"{memory / 2**20:.0f} MiB"
        columns += f"{seconds * 1e3:11.2f} ms {mebibytes:>7s}"
    wall, cpu = baseline.seconds / optimised.seconds, baseline.cpu_seconds / optimised.cpu_seconds
    return f"{columns}{wall:12.1f} ({cpu:.1f})"


if __name__ == "__main__":
    main()
