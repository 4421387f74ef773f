"""The log line of a training: loss, throughput, elapsed and remaining time."""

import time


class Progress:
    """Measures a training from its first step in this process.

    Args:
        step: steps that were done before.
        total_steps: steps of the whole training.
        batch_size: images per step, over all processes.
    """

    def __init__(self, step: int, total_steps: int, batch_size: int) -> None:
        self.first_step, self.total_steps, self.batch_size = step, total_steps, batch_size
        self._start = time.monotonic()
        self.restart(step)

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
