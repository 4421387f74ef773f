"""The benchmarks as users run them, and how they measure."""

import json
from pathlib import Path

import pytest
import torch

from benchmarks.__main__ import main
from benchmarks.cases import CASES
from benchmarks.measure import compare, peak_memory

CPU = torch.device("cpu")


def test_quick_run_prints_a_line_and_writes_a_row_for_every_case(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["--quick", "--device", "cpu", "--output", str(tmp_path / "benchmarks.json")])
    written = json.loads((tmp_path / "benchmarks.json").read_text())
    printed = capsys.readouterr().out
    assert [row["case"] for row in written["rows"]] == list(CASES)
    assert all(f"{name} " in printed for name in CASES)
    assert all(
        row[way][time] > 0 for row in written["rows"] for way in ("textbook", "ours") for time in ("seconds", "busy")
    )
    (sampling,) = (row["image"] for row in written["rows"] if "image" in row)
    assert sampling["250 steps"] == pytest.approx(10 * sampling["25 steps"])


def test_ways_are_called_by_turns() -> None:
    calls: list[str] = []
    compare({name: lambda name=name: calls.append(name) for name in "ab"}, CPU, repeats=3)
    assert "".join(calls[4:]) == "ababab"


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="memory is known under Linux only")
def test_peak_memory_counts_what_is_freed_again() -> None:
    def way() -> None:
        for _ in range(3):
            torch.ones(16 * 2**20)

    memory = peak_memory(way, CPU)
    assert memory is not None
    assert memory / 2**20 == pytest.approx(64, rel=0.2)
