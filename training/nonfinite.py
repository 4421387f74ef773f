"""Steps whose loss or gradient is not finite, and losses that jump."""

import math
import statistics
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn


class NonFiniteSteps(NamedTuple):
    """How many steps were skipped (`number`), which was the first, and what was not finite there."""

    number: int = 0
    first_step: int = -1
    quantity: str = ""

    def __str__(self) -> str:
        return (
            f"{self.number} steps had no finite loss or gradient; the first was step {self.first_step}, "
            f"where the {self.quantity} was not finite"
        )


class NonFiniteGuard:
    """Skips optimiser steps whose loss or gradient is not finite, without a device sync.

    Adam's fused implementation leaves weights and state untouched where `found_inf` is 1 (the protocol of PyTorch's
    gradient scaler); `ExponentialMovingAverage.update` takes it as `skip`.
    """

    _QUANTITIES = ("", "loss", "gradient")

    def __init__(self, device: torch.device) -> None:
        self.found_inf = torch.zeros((), device=device)
        self._record = torch.zeros(3, dtype=torch.int64, device=device)  # number, first step, index of the quantity
        self.restore(NonFiniteSteps())

    def inspect(
        self, optimizer: torch.optim.Optimizer, loss: Tensor, gradients: Sequence[Tensor], step: Tensor
    ) -> Tensor:
        """Check the loss and the gradients of a step (its number, a scalar), and tell the optimiser whether to skip it.

        Returns:
            The norm of all gradients together, a scalar on the device.
        """
        norm = nn.utils.get_total_norm(gradients)
        loss_is_finite = loss.isfinite()
        skip = ~(loss_is_finite & norm.isfinite())
        number, first_step, quantity = self._record
        first = skip & (number == 0)
        first_step.copy_(torch.where(first, step, first_step))
        quantity.copy_(torch.where(first, torch.where(loss_is_finite, 2, 1), quantity))
        number += skip
        self.found_inf.copy_(skip)
        optimizer.found_inf = self.found_inf  # type: ignore[attr-defined]
        return norm

    def read(self) -> NonFiniteSteps:
        """Wait for the device and return what was counted so far."""
        number, first_step, quantity = self._record.tolist()
        return NonFiniteSteps(number, first_step, self._QUANTITIES[quantity])

    def restore(self, steps: NonFiniteSteps) -> None:
        """Continue counting from there."""
        values = [steps.number, steps.first_step, self._QUANTITIES.index(steps.quantity)]
        self._record.copy_(torch.tensor(values))


class SpikeWatch:
    """Finds losses of more than `FACTOR` times the median of the last `WINDOW` losses."""

    WINDOW, FEWEST, FACTOR = 100, 20, 5.0

    def __init__(self) -> None:
        self._recent: deque[float] = deque(maxlen=self.WINDOW)

    def check(self, losses: Sequence[float], last_step: int) -> list[str]:
        """A message for each spike among the losses of the steps up to `last_step`; non-finite ones are ignored."""
        messages = []
        for step, loss in enumerate(losses, last_step - len(losses) + 1):
            median = statistics.median(self._recent) if len(self._recent) >= self.FEWEST else math.inf
            if self.FACTOR * median < loss < math.inf:
                messages.append(f"step {step}: the loss is {loss:.4g}, far above its running median {median:.4g}")
            if math.isfinite(loss):
                self._recent.append(loss)
        return messages
