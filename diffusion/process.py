"""The interface of a diffusion process over label maps: what samplers, loss and likelihood need to know of it."""

from abc import ABC, abstractmethod
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from utils.config import Config
from utils.device import widest_float
from utils.errors import UserError


class Process(nn.Module, ABC):
    """A Markov chain that turns label maps into noise, pixel by pixel.

    Label maps are integers of shape B x H x W, logits and probabilities B x C x H x W. Times are integers of shape B
    with 0 <= s < t <= T; t = 0 is the data. A module that is named by the setting `process` offers

        get_process(num_classes, **process_params) -> Process

    Args:
        num_classes: C, the classes of the data and of the network's logits, from 2 to 256 (a class fits one byte).
        alpha_bar: table of T + 1 decreasing signal levels, 1 for the data; samplers choose their times by it.
        num_states: states of x_t, which the network sees as one-hot channels: C by default, more for a process with
            states of its own, such as a mask.

    Attributes:
        config: the settings that checkpoints store, if the process has a config class.
        alpha_bar_cpu: the table in CPU memory, float64, so that a sampler builds its time grid without a device sync.
        alpha_bar: the table on the device of the model, in float64 if the device has it.
    """

    alpha_bar: Tensor
    config: Config | None = None

    def __init__(self, num_classes: int, alpha_bar: Tensor, num_states: int | None = None) -> None:
        super().__init__()
        if not isinstance(num_classes, int) or not 2 <= num_classes <= 256:  # a file may say anything
            raise UserError(f"num_classes is {num_classes}; a categorical process has 2 to 256 classes")
        self.num_classes = num_classes
        self.num_states = num_classes if num_states is None else num_states
        self.time_steps = len(alpha_bar) - 1
        self.alpha_bar_cpu: NDArray[np.float64] = alpha_bar.double().numpy().copy()
        self.register_buffer("alpha_bar", torch.from_numpy(self.alpha_bar_cpu.copy()), persistent=False)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Process":
        # Moving a float64 table to a device without float64 fails, and one that was moved back has its precision again.
        device = fn(torch.zeros(())).device
        self.alpha_bar = torch.from_numpy(self.alpha_bar_cpu.copy()).to(widest_float(device))
        return super()._apply(fn, recurse)

    @abstractmethod
    def sample_prior(self, keys: Tensor, shape: tuple[int, int]) -> Tensor:
        """Draw x_T of height and width `shape` for every key (int64, B): B x H x W, uint8."""

    @abstractmethod
    def q_sample(self, x_0: Tensor, t: Tensor, keys: Tensor) -> Tensor:
        """Draw x_t given x_0 (B x H x W); the noise is a function of `keys` (int64, B)."""

    @abstractmethod
    def p_posterior(self, p_x_0: Tensor, x_t: Tensor, t: Tensor, s: Tensor) -> Tensor:
        """p(x_s | x_t) for any s < t, given the network's p(x_0 | x_t): B x num_states x H x W, in its dtype."""

    @abstractmethod
    def kl(self, logits: Tensor, x_t: Tensor, x_0: Tensor, t: Tensor) -> Tensor:
        """KL( q(x_{t-1} | x_t) || p(x_{t-1} | x_t) ) per pixel, in nats: B x H x W, at least float32.

        `x_0` is a label map (integer, B x H x W), or probabilities of x_0 given x_t (B x C x H x W).
        """

    def evidence(self, logits: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """Logits of p(x_0 | x_t, image) from the output of the network (B x C x H x W); the same by default."""
        return logits

    @abstractmethod
    def prior_kl(self) -> Tensor:
        """KL( q(x_T | x_0) || p(x_T) ) of one pixel, in nats: a scalar in the dtype of `alpha_bar`."""

    def q_log_prob(self, x_t: Tensor, x_0: Tensor, t: Tensor) -> Tensor:
        """log q(x_t | x_0) up to a constant, for the label maps of A raters (B x A x H x W): B x A."""
        raise UserError(f"{type(self).__name__} has no q_log_prob; choose loss.raters: one")

    def ddim_posterior(self, p_x_0: Tensor, x_t: Tensor, t: Tensor, s: Tensor, eta: float = 0.0) -> Tensor:
        """The step of the sampler "ddim", for processes that have one; shapes as in `p_posterior`."""
        raise UserError(f"{type(self).__name__} has no ddim step; choose sampler: coherent or ancestral")


def at_least_float32(logits: Tensor) -> Tensor:
    """Raise half precision to float32, in which softmax, loss and posterior are computed; float64 is kept."""
    return logits if logits.dtype == torch.float64 else logits.float()


def per_pixel(value: Tensor, dtype: torch.dtype) -> Tensor:
    """One number per image (B) in a shape that broadcasts over class and pixels: B x 1 x 1 x 1."""
    return value.to(dtype)[:, None, None, None]
