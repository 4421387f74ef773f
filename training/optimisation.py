"""Parts of the training step: the decay of the learning rate, the average of the weights, and the guard of both."""

import math
import statistics
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel


def polynomial_decay(step: int, total_steps: int, start: float, floor: float, power: float) -> float:
    """The learning rate at `step` (from 0): `start` at first, `floor` from `total_steps` on."""
    left = max(0.0, 1 - step / total_steps)
    return floor + (start - floor) * left**power


Tensors = tuple[Tensor, ...] | list[Tensor]


class NonFiniteSteps(NamedTuple):
    """What `NonFiniteGuard.read` found: how many steps were skipped, and which was the first and why."""

    number: int
    first_step: int
    quantity: str

    def __str__(self) -> str:
        first = f"The first was step {self.first_step}, where the {self.quantity} was not finite"
        return f"{self.number} steps had no finite loss or gradient. {first}"


class NonFiniteGuard:
    """Skips optimiser steps whose loss or gradient is not finite, on the device and without waiting for it.

    Adam's fused implementation leaves weights and state untouched where `found_inf` is 1 (the protocol of PyTorch's
    gradient scaler), and `MovingAverage` gives such a step the weight 0.
    """

    _QUANTITIES = ("", "loss", "gradient")

    def __init__(self, device: torch.device) -> None:
        self.found_inf = torch.zeros((), device=device)
        self._count = torch.zeros((), dtype=torch.int64, device=device)
        self._first_step = torch.full((), -1, dtype=torch.int64, device=device)
        self._first_quantity = torch.zeros((), dtype=torch.int64, device=device)

    def inspect(self, optimizer: torch.optim.Optimizer, loss: Tensor, gradients: Sequence[Tensor], step: int) -> Tensor:
        """Look at the loss and the gradients, and tell the optimiser whether its next step is to be skipped.

        Returns:
            The norm of all gradients together, a scalar on the device.
        """
        norm = nn.utils.get_total_norm(gradients)
        loss_is_bad, bad = ~loss.isfinite(), ~(loss.isfinite() & norm.isfinite())
        first = bad & (self._count == 0)
        self._count += bad
        self._first_step.masked_fill_(first, step)
        self._first_quantity.copy_(torch.where(first, torch.where(loss_is_bad, 1, 2), self._first_quantity))
        self.found_inf.copy_(bad)
        optimizer.found_inf = self.found_inf  # type: ignore[attr-defined]
        return norm

    def read(self) -> NonFiniteSteps:
        """Wait for the device and tell what was counted so far."""
        return NonFiniteSteps(int(self._count), int(self._first_step), self._QUANTITIES[int(self._first_quantity)])

    def restore(self, bad_steps: NonFiniteSteps) -> None:
        """Go on counting from there."""
        self._count.fill_(bad_steps.number)
        self._first_step.fill_(bad_steps.first_step)
        self._first_quantity.fill_(self._QUANTITIES.index(bad_steps.quantity))


def clip(gradients: Sequence[Tensor], norm: Tensor, largest: float) -> None:
    """Scale gradients of that norm down to the `largest` norm, where it is larger; nothing waits for the device."""
    torch._foreach_mul_(list(gradients), (largest / norm).clamp(max=1))


class SpikeWatch:
    """Finds losses far above the ones before: more than `FACTOR` times the median of the last `WINDOW` of them."""

    WINDOW, FEWEST, FACTOR = 100, 20, 5.0

    def __init__(self) -> None:
        self._recent: deque[float] = deque(maxlen=self.WINDOW)

    def look(self, losses: Sequence[float], last_step: int) -> list[str]:
        """A line for each loss that is far above; those that are not finite are `NonFiniteGuard`'s."""
        notes = []
        for step, loss in enumerate(losses, last_step - len(losses) + 1):
            median = statistics.median(self._recent) if len(self._recent) >= self.FEWEST else math.inf
            if self.FACTOR * median < loss < math.inf:
                notes.append(f"step {step}: the loss is {loss:.4g}, far above its running median {median:.4g}")
            if math.isfinite(loss):
                self._recent.append(loss)
        return notes


def moving_average(model: nn.Module, decay: float, guard: NonFiniteGuard) -> AveragedModel:
    """An exponential moving average of the weights, which warms up: after n steps its decay is at most n / (n + 9).

    Steps that `guard` skips do not move it. The count of steps stays on the CPU, so that updating never waits.
    """

    def update(averages: Tensors, weights: Tensors, num_averaged: Tensor | int) -> None:
        steps = int(num_averaged)
        weight = (1 - min(decay, steps / (steps + 9))) * (1 - guard.found_inf)
        change = torch._foreach_sub(weights, averages)
        torch._foreach_mul_(change, weight)
        torch._foreach_add_(averages, change)

    average = AveragedModel(model, multi_avg_fn=update)
    average.n_averaged = average.n_averaged.cpu()
    return average
