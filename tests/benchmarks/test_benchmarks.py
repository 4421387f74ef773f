"""The benchmark command, and how it measures."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from benchmarks import baseline
from benchmarks.__main__ import main
from benchmarks.cases import CASES, QUICK_WORKLOADS, baseline_of
from benchmarks.measure import compare, peak_memory

CPU = torch.device("cpu")


def test_quick_run_prints_and_writes_every_case(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["--quick", "--device", "cpu", "--output", str(tmp_path / "benchmarks.json")])
    written = json.loads((tmp_path / "benchmarks.json").read_text())
    rows = written["rows"]
    printed = capsys.readouterr().out
    assert [row["case"] for row in rows] == list(CASES)
    assert all(f"\n{name} " in printed for name in CASES)
    assert all(row[name]["seconds"] > 0 for row in rows for name in ("baseline", "optimised"))
    assert written["machine"]["precision"] == "float32"
    assert written["machine"]["peak GFLOP/s"] > 1
    counted = {row["case"] for row in rows if row["flops_per_second"]}
    assert counted >= {"training-step", "sampling"}
    assert not counted & {"loss", "loader"}


def test_both_networks_run_in_the_requested_precision() -> None:
    workload = dataclasses.replace(QUICK_WORKLOADS[0], precision="bfloat16")
    model = workload.model(CPU)
    network, _ = baseline_of(model)
    assert model.precision == network.precision == torch.bfloat16
    images, labels, t = workload.images(CPU), workload.labels(CPU), torch.tensor([3, 200])
    with torch.no_grad():
        outputs = model(labels, t, images), network(baseline.one_hot(labels, workload.num_classes), t, images)
        exact = dataclasses.replace(workload, precision="float32").model(CPU)(labels, t, images)
    errors = [float((output - exact).norm() / exact.norm()) for output in outputs]
    assert all(1e-4 < error < 0.05 for error in errors)


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
