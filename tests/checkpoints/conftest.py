"""Fixtures of the tests of official files."""

from pathlib import Path
from typing import Any

import pytest
import torch

from checkpoints.official import load_model_file
from tests.checkpoints.official_files import Load


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """Write something to a file and load it."""

    def write_and_load(contents: Any) -> dict[str, Any]:
        torch.save(contents, tmp_path / "that.pt")
        return load_model_file(tmp_path / "that.pt")

    return write_and_load
