"""The processes of one run, started by `torchrun`; a script that is started by itself is a run of one process.

All of these functions are meant for any number of processes: with one, they return what they are given. Those that
exchange something have to be called by all processes alike.
"""

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch._C._distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from utils.errors import UserError

Item = TypeVar("Item")


@contextlib.contextmanager
def process_group() -> Iterator[None]:
    """Meet the other processes, where `torchrun` started several: NCCL carries CUDA tensors, gloo those of the CPU.

    Raises:
        UserError: where they do not meet.
    """
    if not started_by_torchrun() or int(os.environ["WORLD_SIZE"]) == 1:
        yield
        return
    with lost_peer_as_user_error():
        store, own_rank, number = next(rendezvous("env://"))
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        dist.init_process_group(backend, store=PrefixStore(_meeting(), store), rank=own_rank, world_size=number)
    yield
    dist.destroy_process_group()  # a process that fails just ends: there may be nobody left to say goodbye to


def started_by_torchrun() -> bool:
    """Whether this process is one of torchrun's."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def world_size() -> int:
    """How many processes the run has."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """The number of this process, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def is_main() -> bool:
    """Whether this is process 0, the only one that writes."""
    return rank() == 0


def shard() -> slice:
    """Which items of a list fall to this process: every item falls to one, and shares differ by one item at most."""
    return slice(rank(), None, world_size())


def local_rank() -> int:
    """The number of this process among those of its machine, from 0."""
    return int(os.environ["LOCAL_RANK"]) if dist.is_initialized() else 0


@contextlib.contextmanager
def local_main_first() -> Iterator[None]:
    """Let one process of each machine go ahead, so that a file that they all need is made once."""
    if local_rank() > 0:
        wait_for_all()
    yield
    if local_rank() == 0:
        wait_for_all()


def wait_for_all() -> None:
    """Return when all processes have come this far."""
    all_gather_objects(None)


def broadcast_from_main(make: Callable[[], Item]) -> Item:
    """What `make` returns in process 0, in all processes; it is called there alone."""
    if world_size() == 1:
        return make()
    box = [make() if is_main() else None]
    with lost_peer_as_user_error():
        dist.broadcast_object_list(box)
    (item,) = box
    return item  # type: ignore[return-value]


def all_gather_objects(item: Item) -> list[Item]:
    """The items of all processes, in their order."""
    if world_size() == 1:
        return [item]
    items: list[Any] = [None] * world_size()
    with lost_peer_as_user_error():
        dist.all_gather_object(items, item)
    return items


def any_rank(flag: bool) -> bool:
    """Whether the flag is set in any process. It travels between CPUs: nobody waits for a device."""
    if world_size() == 1:
        return flag
    flags = torch.tensor(int(flag))
    with lost_peer_as_user_error():
        dist.all_reduce(flags)
    return bool(flags)


def all_reduce_sum(tensors: Iterable[Tensor]) -> None:
    """Replace every tensor by its sum over the processes, all in one message. They have one type and one device."""
    if world_size() == 1:
        return
    tensors = list(tensors)
    flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
    with lost_peer_as_user_error():
        dist.all_reduce(flat)
    for tensor, total in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
        tensor.copy_(total.view_as(tensor))


def _meeting() -> str:
    """A name for this start of the processes: the launcher's store still has the addresses of those it restarted.

    The launchers of several machines do not count restarts alike; there, each start needs a store of its own.
    """
    alone = os.environ.get("GROUP_WORLD_SIZE", "1") == "1"
    return f"start {os.environ.get('TORCHELASTIC_RESTART_COUNT', '0') if alone else ''}"


@contextlib.contextmanager
def lost_peer_as_user_error() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:  # also the base of PyTorch's own errors of communication
        reason = str(error).strip().splitlines()[:1]
        raise UserError(f"process {os.environ['RANK']} lost another process of the run: {' '.join(reason)}") from error
