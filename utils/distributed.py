"""The processes of one run, started by `torchrun`; a script started without it is a run of one process.

All functions work with any number of processes; with one, they return what they are given. Functions that communicate
have to be called by all processes.
"""

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import PrefixStore  # type: ignore[attr-defined]
from torch.distributed.rendezvous import rendezvous

from utils.errors import UserError

Item = TypeVar("Item")


@contextlib.contextmanager
def process_group() -> Iterator[None]:
    """Join the other processes of a torchrun launch: NCCL carries CUDA tensors, gloo those of the CPU. Raises UserError
    if the processes cannot connect."""
    if not started_by_torchrun() or int(os.environ["WORLD_SIZE"]) == 1:
        yield
        return
    with lost_peer_as_user_error():
        store, own_rank, size = next(rendezvous("env://"))
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        dist.init_process_group(backend, store=PrefixStore(_store_prefix(), store), rank=own_rank, world_size=size)
    yield
    dist.destroy_process_group()  # after an error it is skipped: the other processes may be gone


def started_by_torchrun() -> bool:
    """Whether torchrun started this process."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def world_size() -> int:
    """The number of processes of the run."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """The number of this process, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def is_main() -> bool:
    """Whether this is rank 0, the only process that writes files."""
    return rank() == 0


def local_rank() -> int:
    """The number of this process on its machine, from 0."""
    return int(os.environ["LOCAL_RANK"]) if dist.is_initialized() else 0


def shard() -> slice:
    """The items of a list that belong to this rank; shards are disjoint, and their sizes differ by at most one."""
    return slice(rank(), None, world_size())


@contextlib.contextmanager
def local_main_first() -> Iterator[None]:
    """Run the block in local rank 0 of each machine before its other ranks, so that it creates a shared file."""
    if local_rank() > 0:
        all_gather_objects(None)  # a barrier
    yield
    if local_rank() == 0:
        all_gather_objects(None)


def broadcast_from_main(make: Callable[[], Item]) -> Item:
    """Call `make` in rank 0 only, and return its result in every rank."""
    if world_size() == 1:
        return make()
    box = [make() if is_main() else None]
    with lost_peer_as_user_error():
        dist.broadcast_object_list(box)
    (item,) = box
    return item  # type: ignore[return-value]


def all_gather_objects(item: Item) -> list[Item]:
    """The items of all ranks, ordered by rank."""
    if world_size() == 1:
        return [item]
    items: list[Any] = [None] * world_size()
    with lost_peer_as_user_error():
        dist.all_gather_object(items, item)
    return items


def any_rank(flag: bool) -> bool:
    """Whether the flag is set in any rank. A CPU tensor carries it, so no device is synchronised."""
    if world_size() == 1:
        return flag
    flags = torch.tensor(int(flag))
    with lost_peer_as_user_error():
        dist.all_reduce(flags)
    return bool(flags)


def all_reduce_sum(tensors: Iterable[Tensor]) -> None:
    """Replace each tensor by its sum over all ranks, in a single message; they share one dtype and device."""
    if world_size() == 1:
        return
    tensors = list(tensors)
    flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
    with lost_peer_as_user_error():
        dist.all_reduce(flat)
    for tensor, total in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
        tensor.copy_(total.view_as(tensor))


@contextlib.contextmanager
def lost_peer_as_user_error() -> Iterator[None]:
    """Translate PyTorch's communication errors, which all derive from RuntimeError. Raises UserError that another
    process of the run is gone."""
    try:
        yield
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[:1]
        raise UserError(f"rank {os.environ['RANK']} lost another process of the run: {' '.join(reason)}") from error


def _store_prefix() -> str:
    """A different prefix for every restart: torchrun's store still holds the addresses of the processes before it.

    With several machines it is always the same, since their launchers count restarts separately; a restart then needs
    a new store.
    """
    single_machine = os.environ.get("GROUP_WORLD_SIZE", "1") == "1"
    return f"start {os.environ.get('TORCHELASTIC_RESTART_COUNT', '0') if single_machine else ''}"
