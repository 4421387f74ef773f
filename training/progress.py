"""What a training reports at regular intervals: loss, throughput, elapsed and remaining time."""

import time
from collections.abc import Sequence

import torch
from torch import Tensor

from training.nonfinite import SpikeWatch
from training.state import TrainState
from training.tensorboard import TensorBoard
from utils.logs import LOGGER


class Progress:
    """Reports to the log and to TensorBoard.

    Args:
        board: receives the curves.
        step: steps that were done before.
        total_steps: steps of the whole training.
        batch_size: images per step, over all processes.
    """

    def __init__(self, board: TensorBoard, step: int, total_steps: int, batch_size: int) -> None:
        self.board, self.first_step, self.total_steps, self.batch_size = board, step, total_steps, batch_size
        self._spikes, self._start = SpikeWatch(), time.monotonic()
        self.restart(step)

    def report(self, state: TrainState, losses: Sequence[Tensor]) -> None:
        """Report the losses of the steps since the last report."""
        values, rate = torch.stack(list(losses)).tolist(), float(state.optimizer.param_groups[0]["lr"])
        loss = sum(values) / len(values)
        LOGGER.info(self.line(state.step, loss, rate))
        for message in self._spikes.check(values, state.step):
            LOGGER.info(message)
        curves = {"loss": loss, "learning_rate": rate, "nonfinite_steps": state.guard.read().number}
        self.board.add_scalars({f"train/{name}": value for name, value in curves.items()}, state.step)

    def restart(self, step: int) -> None:
        """Measure the throughput from here on, without what came before, such as a validation."""
        self._interval_step, self._interval_start = step, time.monotonic()

    def line(self, step: int, loss: float, learning_rate: float) -> str:
        """What to log after `step` steps; the remaining time includes validations as frequent as those before."""
        now = time.monotonic()
        images_per_second = (step - self._interval_step) * self.batch_size / max(now - self._interval_start, 1e-9)
        elapsed = now - self._start
        remaining = elapsed / max(step - self.first_step, 1) * (self.total_steps - step)
        self.restart(step)
        return (
            f"step {step}/{self.total_steps}  loss {loss:.4g}  lr {learning_rate:.2g}  "
            f"{images_per_second:.1f} images/s  elapsed {duration(elapsed)}  remaining {duration(remaining)}"
        )


def duration(seconds: float) -> str:
    """Hours, minutes and seconds: 1:02:03."""
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d}"
