"""Recording a function, without a device: when it is recorded, and what is called meanwhile."""

import copy

import pytest
import torch
from torch import Tensor

from models import cuda_graph
from models.cuda_graph import WARM_UP, CudaGraph


class Replay:
    """Stands for a recording: computes from the places that were recorded."""

    def __init__(self, record: "Record") -> None:
        self.record = record

    def replay(self) -> None:
        self.record.output.copy_(self.record.function(*self.record.places))


class Record(CudaGraph):
    """Records without a device."""

    def _record(self, function, arguments) -> None:  # type: ignore[no-untyped-def]
        self.function, self.places = function, [None if x is None else x.clone() for x in arguments]
        self._inputs = [place for place in self.places if place is not None]
        self.output = self._output = function(*self.places)
        self._graph = Replay(self)  # type: ignore[assignment]
        self.recordings = getattr(self, "recordings", 0) + 1


@pytest.fixture
def graph(monkeypatch: pytest.MonkeyPatch) -> Record:
    monkeypatch.setattr(cuda_graph, "_on_side_stream", lambda function, arguments: function(*arguments))
    return Record(enabled=True)


def double(x: Tensor, offset: Tensor | None = None) -> Tensor:
    return 2 * x if offset is None else 2 * x + offset


def test_every_call_returns_a_result_of_its_own(graph: Record) -> None:
    results = [graph.run(double, torch.full((2,), float(k))) for k in range(WARM_UP + 3)]
    assert [result.tolist() for result in results] == [[2.0 * k] * 2 for k in range(WARM_UP + 3)]
    assert graph.recordings == 1


def test_other_shapes_and_arguments_run_as_usual_until_they_repeat(graph: Record) -> None:
    calls = [(torch.ones(2),), (torch.ones(3),), (torch.ones(2), torch.ones(2))]
    for _ in range(WARM_UP + 1):
        graph.run(double, *calls[0])
    assert graph.run(double, *calls[1]).tolist() == [2.0] * 3
    assert graph.run(double, *calls[2]).tolist() == [3.0] * 2
    assert graph.run(double, *calls[0]).tolist() == [2.0] * 2
    assert graph.recordings == 1
    for _ in range(WARM_UP + 1):
        assert graph.run(double, *calls[1]).tolist() == [2.0] * 3
    assert graph.recordings == 2


def test_nothing_is_recorded_unless_enabled() -> None:
    graph = CudaGraph()
    assert [graph.run(double, torch.ones(1)).item() for _ in range(9)] == [2.0] * 9


def test_a_copy_has_no_recording(graph: Record) -> None:
    for _ in range(WARM_UP + 1):
        graph.run(double, torch.ones(1))
    assert copy.deepcopy(graph)._graph is None
    assert copy.deepcopy(graph).enabled
