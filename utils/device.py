"""Choosing a device by name."""

import os

import torch

from utils.distributed import local_rank, world_size
from utils.errors import UserError

WITHOUT_FLOAT64 = {"mps"}
"""Types of devices that cannot compute in float64."""


def widest_float(device: torch.device) -> torch.dtype:
    """float64, or float32 on devices that have no float64."""
    return torch.float32 if device.type in WITHOUT_FLOAT64 else torch.float64


def choose_device(name: str) -> torch.device:
    """The named device; "auto" is CUDA if available and the CPU otherwise. "mps" is the GPU of an Apple computer.

    With several processes on one machine, each uses its own CUDA device. Raises UserError for a device that does not
    exist on this machine.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UserError(f"device: {name!r} is not a device; expected auto, cpu, cuda, cuda:N or mps") from error
    if device.type not in ("cpu", "cuda", "mps"):
        raise UserError(f"device: {name} is not supported; expected auto, cpu, cuda, cuda:N or mps")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise UserError(f"device: this machine, or its version of PyTorch, has no {name}; use auto")
    if device.type == "cuda" and world_size() > 1:
        if ":" in name:
            raise UserError(f"device: {name} is a single device, but the run has {world_size()} processes; use cuda")
        device = torch.device("cuda", local_rank())
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UserError(f"device: there is no {device}; this machine has {torch.cuda.device_count()} CUDA devices")
    if device.type == "cuda" and world_size() > 1:
        torch.cuda.set_device(device)  # the device that NCCL uses in this process
    return device


def set_deterministic(enabled: bool) -> None:
    """Choose whether PyTorch uses only deterministic algorithms; to be called before CUDA is used."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS reads it when it is initialised
    torch.use_deterministic_algorithms(enabled)
    torch.backends.cudnn.deterministic = enabled
