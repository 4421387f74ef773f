"""Devices by name."""

import pytest
import torch

from utils.device import choose_device, widest_float
from utils.errors import UserError


@pytest.mark.parametrize("name", ["gpu", "", "cuda:one", "meta", "cuda:2", "cuda:99", "mps"])
def test_devices_that_are_not_there_are_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
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


def test_the_gpu_of_an_apple_computer_has_to_be_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("mps").type == "mps"
    assert choose_device("auto").type == "cpu"
    assert widest_float(choose_device("mps")) == torch.float32
    assert widest_float(choose_device("cpu")) == torch.float64
