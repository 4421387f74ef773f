"""Devices by name."""

import pytest
import torch

from utils.device import choose_device
from utils.errors import UserError


@pytest.mark.parametrize("name", ["gpu", "", "cuda:one", "meta", "cuda:2", "cuda:99"])
def test_devices_that_are_not_there_are_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(UserError, match="device: "):
        choose_device(name)


@pytest.mark.parametrize(
    ("name", "devices", "expected"),
    [("auto", 1, "cuda"), ("auto", 0, "cpu"), ("cpu", 1, "cpu"), ("cuda:1", 2, "cuda:1")],
)
def test_device_is_the_one_named_and_by_default_a_gpu_if_there_is_one(
    name: str, devices: int, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: devices > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: devices)
    assert str(choose_device(name)).removesuffix(":0") == expected
