"""The benchmark command, and how it measures."""

import json
from pathlib import Path

import pytest
import torch

from benchmarks.__main__ import main
from benchmarks.cases import CASES
from benchmarks.measure import compare, peak_memory

CPU = torch.device("cpu")


def test_quick_run_prints_and_writes_every_case(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["--quick", "--device", "cpu", "--output", str(tmp_path / "benchmarks.json")])
    rows = json.loads((tmp_path / "benchmarks.json").read_text())["rows"]
    printed = capsys.readouterr().out
    assert [row["case"] for row in rows] == list(CASES)
    assert all(f"\n{name} " in printed for name in CASES)
    assert all(row[name]["seconds"] > 0 for row in rows for name in ("baseline", "optimised"))


def test_implementations_alternate() -> None:
    calls: list[str] = []
    compare([lambda: calls.append("a"), lambda: calls.append("b")], CPU, repeats=3)
    assert "".join(calls[4:]) == "ababab"


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peak memory is known on Linux only")
def test_peak_memory_includes_what_is_freed_again() -> None:
    def run() -> None:
        for _ in range(3):
            torch.ones(16 * 2**20)

    memory = peak_memory(run, CPU)
    assert memory is not None
    assert memory / 2**20 == pytest.approx(64, rel=0.2)
