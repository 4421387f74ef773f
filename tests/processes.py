"""Runs of several processes, forked from the test's own: they start at once, and meet as those of torchrun do."""

import multiprocessing
import os
import socket
from collections.abc import Callable

import torch


def run_forked(number: int, work: Callable[[], object]) -> list[int | None]:
    """Do `work` in that many processes of one run; returns their exit statuses."""
    context = multiprocessing.get_context("fork")
    port = _free_port()
    processes = [context.Process(target=_joined_work, args=(rank, number, port, work)) for rank in range(number)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout=300)
        process.kill()
    return [process.exitcode for process in processes]


def start_forked(work: Callable[[], object]) -> multiprocessing.process.BaseProcess:
    """Start a run of one process."""
    process = multiprocessing.get_context("fork").Process(target=_alone, args=(work,))
    process.start()
    return process


def _alone(work: Callable[[], object]) -> None:
    torch.set_num_threads(1)
    work()


def _joined_work(rank: int, number: int, port: int, work: Callable[[], object]) -> None:
    torch.set_num_threads(1)
    os.environ.update(
        RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(number), MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port),
        TORCHELASTIC_RUN_ID="test",
    )  # fmt: skip
    work()


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port
