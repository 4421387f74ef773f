"""The Python examples of the documents run as written."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from diffusion.uniform import get_process
from models import CCDM
from tests import tiny


def example(document: str) -> str:
    (code,) = re.findall(r"```python\n(.*?)```", (tiny.ROOT / "docs" / document).read_text(), re.DOTALL)
    return code


def test_prediction_example_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny.save_model(tmp_path / "logs" / "my_run" / "best_ged.pt")
    Image.fromarray(np.zeros((9, 12), dtype=np.uint8)).save(tmp_path / "nodule.png")
    monkeypatch.chdir(tmp_path)
    exec(example("prediction.md"), {})
    assert capsys.readouterr().out == "torch.Size([1, 16, 9, 12]) torch.Size([1, 2, 9, 12])\n"


def test_network_example_can_be_trained_and_sampled() -> None:
    module: dict[str, type] = {}
    exec(example("contributing.md"), module)
    model = CCDM(module["get_network"](num_classes=3, image_channels=2, width=8), get_process(3))
    images, labels = torch.randn(2, 2, 8, 8), torch.randint(3, (2, 8, 8))
    model.loss(images, labels).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    assert model.sample(images, num_samples=2).labels.shape == (2, 2, 8, 8)
