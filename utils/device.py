"""Choosing a device by name."""

import os

import torch

from utils.distributed import local_rank, world_size
from utils.errors import UserError


def choose_device(name: str) -> torch.device:
    """The named device; "auto" is CUDA if available and the CPU otherwise.

    With several processes on one machine, each uses its own CUDA device. Raises UserError for a device that does not
    exist on this machine.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UserError(f"device: {name!r} is not a device; expected auto, cpu, cuda or cuda:N") from error
    if device.type not in ("cpu", "cuda"):
        raise UserError(f"device: {name} is not supported; expected auto, cpu, cuda or cuda:N")
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
