"""Files of `torch.save` that claim to be more than they are are refused at once."""

import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from checkpoints.torch_files import read_torch_file
from utils.errors import UserError

LOOP: list[Any] = []
LOOP.append(LOOP)
LAUGHS: Any = torch.ones(1)
for _ in range(30):
    LAUGHS = [LAUGHS] * 10
DEEP: Any = torch.ones(1)
for _ in range(100):
    DEEP = [DEEP]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "weights.pt"


@pytest.fixture(autouse=True)
def quickly() -> Iterator[None]:
    start = time.monotonic()
    yield
    assert time.monotonic() - start < 2


def refusal(path: Path) -> str:
    with pytest.raises(UserError) as error:
        read_torch_file(path)
    return str(error.value)


@pytest.mark.parametrize("contents", [LOOP, LAUGHS, DEEP])
def test_containers_without_a_bound_are_refused(path: Path, contents: Any) -> None:
    torch.save({"model": contents}, path)
    assert refusal(path) == f"{path} is damaged: it has more than 200,000 entries or 40 levels"


@pytest.mark.parametrize("old", [False, True])
def test_tensors_larger_than_the_file_are_refused(path: Path, old: bool) -> None:
    torch.save({"a": torch.ones(1).expand(10**6, 10**6)}, path, _use_new_zipfile_serialization=not old)
    assert refusal(path) == f"{path} is damaged: its tensors claim to be much larger than the file"


def test_tensors_that_share_their_memory_are_read(path: Path) -> None:
    shared = torch.rand(1000)
    torch.save({"model": shared, "average": shared, "column": shared[:10, None].expand(10, 10)}, path)
    assert torch.equal(read_torch_file(path)["average"], shared)


def attributes() -> torch.Tensor:
    tensor = torch.ones(2)
    tensor.numpy = "not a function"  # type: ignore[method-assign, assignment]
    return tensor


@pytest.mark.parametrize(
    "tensor",
    [
        torch.ones(2, device="meta"),
        torch.eye(2).to_sparse(),
        torch.ones(2, dtype=torch.complex64),
        torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8),
        torch._neg_view(torch.ones(2)),
        attributes(),
    ],
)
def test_other_tensors_are_refused(path: Path, tensor: torch.Tensor) -> None:
    torch.save({"model": {"weight": tensor}}, path)
    assert refusal(path) == f"{path} is damaged: the tensor model.weight is not one of ordinary numbers"


def test_compressed_archive_is_refused(path: Path) -> None:
    torch.save({"a": torch.zeros(10**6)}, path)
    with zipfile.ZipFile(path) as archive:
        entries = {entry.filename: archive.read(entry) for entry in archive.infolist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    assert "compressed archive" in refusal(path)
