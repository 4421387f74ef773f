"""The Python example of docs/prediction.md runs as written."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests import tiny


def test_prediction_example_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny.save_model(tmp_path / "logs" / "my_run" / "best_ged.pt")
    Image.fromarray(np.zeros((9, 12), dtype=np.uint8)).save(tmp_path / "nodule.png")
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall(r"```python\n(.*?)```", (tiny.ROOT / "docs" / "prediction.md").read_text(), re.DOTALL)
    exec(code, {})
    assert capsys.readouterr().out == "torch.Size([1, 16, 9, 12]) torch.Size([1, 2, 9, 12])\n"
