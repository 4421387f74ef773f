"""Where to compute."""

import torch

from utils.distributed import local_rank, world_size
from utils.errors import UserError


def choose_device(name: str) -> torch.device:
    """The device of that name; "auto" is CUDA where there is some, and otherwise the CPU.

    Of the processes of one machine, each takes a CUDA device of its own.

    Raises:
        UserError: for a device that does not exist here.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UserError(f"device: {name!r} is not a device; take auto, cpu, cuda or cuda:N") from error
    if device.type not in ("cpu", "cuda"):
        raise UserError(f"device: {name} is not supported; take auto, cpu, cuda or cuda:N")
    if device.type == "cuda" and world_size() > 1:
        if ":" in name:
            raise UserError(
                f"device: {name} is one device, and {world_size()} processes were started; take auto or cuda"
            )
        device = torch.device("cuda", local_rank())
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UserError(f"device: {device} is not there; this machine has {torch.cuda.device_count()} CUDA devices")
    if device.type == "cuda" and world_size() > 1:
        torch.cuda.set_device(device)  # what NCCL takes for the device of this process
    return device
