"""The exponential moving average of the weights, with which the model is validated and sampled."""

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from checkpoints.weights import load_weights
from models import CCDM
from utils.device import widest_float


class ExponentialMovingAverage:
    """Bias-corrected exponential moving average of a model's weights.

    After n steps the weights of step i (1 <= i <= n) count in proportion to decay^(n - i), and the initial weights do
    not count at all, as in Adam's moments (Kingma and Ba, 2015, section 3):

        average_n = average_(n-1) + (1 - decay) / (1 - decay^n) (weights_n - average_(n-1))

    As long as n is far below 1 / (1 - decay), this is the plain mean of all steps; later, the mean age of the averaged
    weights is decay / (1 - decay) steps.

    Attributes:
        model: a copy of the model that carries the averaged weights, in evaluation mode.
        decay: the settings call it polyak_alpha.
    """

    def __init__(self, model: CCDM, decay: float) -> None:
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self.decay = decay
        # On the device, as whether a step counts is only known there; float32 holds every integer up to 2^24.
        device = next(model.parameters()).device
        self._num_averaged = torch.zeros((), dtype=widest_float(device), device=device)

    @torch.no_grad()
    def update(self, model: CCDM, skip: Tensor) -> None:
        """Include the current weights unless `skip`, a scalar on the device, is 1; does not wait for the device."""
        keep = 1 - skip.to(self._num_averaged.dtype)
        self._num_averaged += keep
        weight = keep * (1 - self.decay) / (1 - self.decay ** self._num_averaged.clamp(min=1))
        averages, weights = _parameters(self.model), _parameters(model)
        change = torch._foreach_sub(weights, averages)
        torch._foreach_mul_(change, weight.to(weights[0].dtype))
        torch._foreach_add_(averages, change)
        for average, buffer in zip(self.model.buffers(), model.buffers(), strict=True):
            average.copy_(buffer)

    def state_dict(self) -> dict[str, Any]:
        """The entries of a checkpoint: `average` and `num_averaged`."""
        return {"average": self.model.state_dict(), "num_averaged": int(self._num_averaged)}

    def load_state_dict(self, contents: Mapping[str, Any]) -> None:
        """Continue from the entries of a checkpoint.

        Raises:
            UserError: for weights of another network.
        """
        load_weights(self.model, contents["average"])
        self._num_averaged.fill_(contents["num_averaged"])


def _parameters(model: nn.Module) -> list[Tensor]:
    return list(model.parameters())
