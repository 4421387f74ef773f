"""How the times of a batch are drawn: each sampler returns the times and the weights that make the loss unbiased."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from checkpoints.weights import check_weights
from diffusion.objective import uniform_times
from diffusion.process import Process
from utils.device import widest_float
from utils.distributed import all_reduce_sum
from utils.noise import derive_key, uniform

UNIFORM_SHARE = 0.1


class UniformTimes:
    """Independent uniform times, a function of the keys of the images."""

    def __init__(self, process: Process) -> None:
        self.process = process

    def draw(self, keys: Tensor, step_key: Tensor, positions: Tensor, batch_size: int) -> tuple[Tensor, Tensor]:
        """Draw a time for each image of (a share of) a batch.

        Args:
            keys: int64, B x K, one per image and draw.
            step_key: int64, a scalar, the same for the whole batch.
            positions: int64, B x K, in the whole batch of `batch_size` images x draws.

        Returns:
            Times 1 .. T, int64, B x K, and the weight of each loss, B x K.
        """
        t = uniform_times(self.process, keys.flatten()).view(keys.shape)
        return t, torch.ones(keys.shape, device=keys.device)

    def update(self, t: Tensor, losses: Tensor) -> None:
        """Learn from the unweighted losses of this rank at times t (B x K); all ranks have to call this together."""

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint has to keep."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a checkpoint."""


class StratifiedTimes(UniformTimes):
    """One time in each of `batch_size` equal intervals (Kingma et al., *Variational Diffusion Models*, 2021, I.1).

    t_i = 1 + floor(T ((u + i / B) mod 1)) with one uniform u for the batch: every time is uniform, and a batch covers
    all noise levels.
    """

    def draw(self, keys: Tensor, step_key: Tensor, positions: Tensor, batch_size: int) -> tuple[Tensor, Tensor]:
        """See `UniformTimes.draw`."""
        t = 1 + (self._strata(step_key, positions, batch_size) * self.process.time_steps).long()
        return t, torch.ones(keys.shape, device=keys.device)

    @staticmethod
    def _strata(step_key: Tensor, positions: Tensor, batch_size: int) -> Tensor:
        offset = uniform(derive_key(step_key, "t")[None], (1,))[0, 0].to(widest_float(positions.device))
        return (offset + positions.to(offset.device) / batch_size) % 1


class ImportanceTimes(StratifiedTimes):
    """Times drawn in proportion to the running root mean square of their loss, stratified over the batch.

    p_t mixes this distribution with a tenth of the uniform one, and losses are weighted by 1 / (T p_t), so that their
    expectation stays that of uniform times (Nichol and Dhariwal, *Improved DDPM*, 2021, section 3.3).
    """

    DECAY = 0.99

    def __init__(self, process: Process) -> None:
        super().__init__(process)
        self.mean_square = torch.ones_like(process.alpha_bar[1:])
        self.seen = torch.zeros_like(self.mean_square)

    @property
    def probabilities(self) -> Tensor:
        """p_t for t = 1 .. T, shape T."""
        # times that have not been drawn count as the mean of the others
        known = self.seen > 0
        mean = (self.mean_square * known).sum() / known.sum().clamp(min=1)
        rms = torch.where(known, self.mean_square, mean.clamp(min=1e-12)).sqrt()
        return (1 - UNIFORM_SHARE) * rms / rms.sum() + UNIFORM_SHARE / len(rms)

    def draw(self, keys: Tensor, step_key: Tensor, positions: Tensor, batch_size: int) -> tuple[Tensor, Tensor]:
        """See `UniformTimes.draw`."""
        p = self.probabilities
        strata = self._strata(step_key, positions, batch_size).contiguous()
        t = torch.searchsorted(p.cumsum(0), strata).clamp(max=len(p) - 1)
        return 1 + t, (1 / (len(p) * p[t])).float()

    def update(self, t: Tensor, losses: Tensor) -> None:
        """See `UniformTimes.update`."""
        index, squares = t.flatten() - 1, losses.flatten().to(self.seen.dtype).square()
        count = torch.zeros_like(self.seen).index_add_(0, index, torch.ones_like(squares))
        mean = torch.zeros_like(self.seen).index_add_(0, index, squares)
        all_reduce_sum([count, mean])
        mean /= count.clamp(min=1)
        weight = torch.where(self.seen > 0, 1 - self.DECAY, 1.0) * (count > 0) * mean.isfinite()
        self.mean_square += weight * (mean.nan_to_num(posinf=0) - self.mean_square)
        self.seen += count

    def state_dict(self) -> dict[str, Any]:
        """See `UniformTimes.state_dict`."""
        return {"mean_square": self.mean_square, "seen": self.seen}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """See `UniformTimes.load_state_dict`."""
        if state:
            check_weights(self.state_dict(), state, "the checkpoint's times")
            self.mean_square.copy_(state["mean_square"])
            self.seen.copy_(state["seen"])


TIME_SAMPLERS = {"uniform": UniformTimes, "stratified": StratifiedTimes, "importance": ImportanceTimes}
