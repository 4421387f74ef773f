"""Runs of several processes, forked from the test's own: they start at once, and connect as those of torchrun do."""

import multiprocessing
import os
import socket
from collections.abc import Callable
from multiprocessing.process import BaseProcess

import torch


def run_forked(number: int, work: Callable[[], object]) -> list[int | None]:
    """Do `work` in that many processes of one run; returns their exit statuses."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]

    def join_and_work(rank: int) -> None:
        os.environ.update(
            RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(number), MASTER_ADDR="127.0.0.1",
            MASTER_PORT=str(port), TORCHELASTIC_RUN_ID="test",
        )  # fmt: skip
        work()

    processes = [start_forked(lambda rank=rank: join_and_work(rank)) for rank in range(number)]
    return [exit_status(process) for process in processes]


def start_forked(work: Callable[[], object]) -> BaseProcess:
    """Start a run of one process."""

    def work_in_one_thread() -> None:
        torch.set_num_threads(1)
        work()

    process = multiprocessing.get_context("fork").Process(target=work_in_one_thread)
    process.start()
    return process


def exit_status(process: BaseProcess) -> int | None:
    """Wait for the end of a run; one that hangs is killed, since the tests would wait for it at their end."""
    process.join(timeout=300)
    process.kill()
    process.join()
    return process.exitcode
