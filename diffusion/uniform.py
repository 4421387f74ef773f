"""The process of CCDM: with some probability a pixel's class is replaced by one drawn uniformly from all classes.

All formulas cost O(C) per pixel, because the forward kernel between two times has only two distinct values, one for
"same class" and one for "other class".
"""

from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from diffusion.kl import BinaryPosteriorKL, Kernel, PosteriorKL, SoftPosteriorKL
from diffusion.process import Process, at_least_float32, per_pixel
from diffusion.schedules import SCHEDULES, alpha_bar_table
from utils.config import Config, Positive, choice_of
from utils.noise import derive_key, uniform


class UniformConfig(Config):
    """Length and noise schedule of the process."""

    time_steps: Positive = Field(250, le=10_000, description="T, the number of steps of the process")
    beta_schedule: choice_of(SCHEDULES) = Field("cosine", description="schedule of alpha-bar")  # type: ignore[valid-type]
    beta_schedule_params: dict[str, float] = Field({}, description="parameters of the schedule")
    evidence: bool = Field(False, description="add the log-likelihood of x_t to the network's logits")


DEFAULTS = UniformConfig()


class UniformDiffusion(Process):
    """The process of the paper (Sec. 3; Hoogeboom et al. 2021), defined by one table abar_0 = 1 > abar_1 > ... >
    abar_T:

        q(x_t | x_0) = Cat( abar_t e(x_0) + (1 - abar_t) / C )

    Args:
        num_classes: C, from 2 to 256.
        alpha_bar: table of T + 1 values, indexed by the time itself (see `diffusion.schedules`).
        config: the settings that checkpoints store.
    """

    config: UniformConfig

    def __init__(self, num_classes: int, alpha_bar: Tensor, config: UniformConfig = DEFAULTS) -> None:
        super().__init__(num_classes, alpha_bar)
        self.config = config

    def kernel(self, t: Tensor, s: Tensor | int, dtype: torch.dtype) -> Kernel:
        """q(x_t | x_s) for s <= t, with values of shape B x 1 x 1 x 1."""
        a = self.alpha_bar[t] / self.alpha_bar[s]
        return Kernel(per_pixel(a, dtype), per_pixel((1 - a) / self.num_classes, dtype))

    def sample_prior(self, keys: Tensor, shape: tuple[int, int]) -> Tensor:
        """Draw a uniform class at every pixel: B x H x W, uint8."""
        return uniform(keys, shape).mul_(self.num_classes).to(torch.uint8)

    def q_sample(self, x_0: Tensor, t: Tensor, keys: Tensor) -> Tensor:
        """Draw x_t given x_0 (B x H x W); the noise is a function of `keys` (int64, B; see `utils.noise`)."""
        keep = per_pixel(self.alpha_bar[t], torch.float32)[:, 0]
        shape = tuple(x_0.shape[1:])
        redrawn = uniform(derive_key(keys, "class"), shape).mul_(self.num_classes).to(x_0.dtype)
        return torch.where(uniform(derive_key(keys, "keep"), shape) < keep, x_0, redrawn)

    def q_posterior(self, x_t: Tensor, x_0: Tensor, t: Tensor, s: Tensor) -> Tensor:
        """q(x_s | x_t, x_0) for any s < t: B x C x H x W, exact for any distance between the two times.

        [a 1(k = x_t) + (1-a)/C] [abar_s 1(k = x_0) + (1-abar_s)/C] / [abar_t 1(x_t = x_0) + (1-abar_t)/C],
        with a = abar_t / abar_s.
        """
        return self.p_posterior(self._is_class(x_0).to(self.alpha_bar.dtype), x_t, t, s)

    def p_posterior(self, p_x_0: Tensor, x_t: Tensor, t: Tensor, s: Tensor) -> Tensor:
        """p(x_s | x_t) for any s < t, given the network's p(x_0 | x_t) (paper, Eq. 12): B x C x H x W, in its dtype.

        The sum over x_0 of q(x_s | x_t, x_0) p(x_0 | x_t) in closed form; at s = 0 it is p(x_0 | x_t) itself.
        """
        step = self.kernel(t, s, p_x_0.dtype)
        is_x_t = self._is_class(x_t).to(p_x_0.dtype)
        return step.keep.mul(is_x_t).add_(step.other).mul_(self._mixed(p_x_0, is_x_t, t, s))

    def ddim_posterior(self, p_x_0: Tensor, x_t: Tensor, t: Tensor, s: Tensor, eta: float = 0.0) -> Tensor:
        """The step of a process with the same marginals q(x_t | x_0) that keeps x_t where it can (Song et al. 2021, A):

            Cat( sigma e(x_t) + (abar_s - sigma abar_t) p + ((1-abar_s) - (1-abar_t) sigma) / C )

        with sigma = (1-eta) (1-abar_s) / (1-abar_t). At eta = 1 every pixel is redrawn from q(x_s | p).
        """
        abar_s, abar_t = self.alpha_bar[s], self.alpha_bar[t]
        sigma = (1 - eta) * (1 - abar_s) / (1 - abar_t)
        weight, keep = (per_pixel(value, p_x_0.dtype) for value in (abar_s - sigma * abar_t, sigma))
        rest = per_pixel(((1 - abar_s) - (1 - abar_t) * sigma) / self.num_classes, p_x_0.dtype)
        return weight * p_x_0 + (keep * self._is_class(x_t) + rest)

    def kl(self, logits: Tensor, x_t: Tensor, x_0: Tensor, t: Tensor) -> Tensor:
        """KL( q(x_{t-1} | x_t) || p(x_{t-1} | x_t) ) per pixel, in nats: B x H x W, at least float32.

        `x_0` is a label map (integer, B x H x W), or probabilities of x_0 given x_t (B x C x H x W). At t = 1 and for a
        label map it is the cross entropy of x_0. See `diffusion.kl` for the closed form.
        """
        logits = at_least_float32(logits)
        s = t - 1
        kernels = (self.kernel(later, earlier, logits.dtype) for later, earlier in ((t, s), (s, 0), (t, 0)))
        is_last, x_t, is_soft = (s == 0)[:, None, None, None], x_t.long()[:, None], x_0.is_floating_point()
        if self.num_classes == 2:
            foreground = (x_0[:, 1:] if is_soft else x_0[:, None]).to(logits.dtype)
            kl: Tensor = BinaryPosteriorKL.apply(logits, x_t, foreground, is_last, *kernels)
        elif is_soft:
            kl = SoftPosteriorKL.apply(logits, x_t, x_0.to(logits.dtype), is_last, *kernels)
        else:
            kl = PosteriorKL.apply(logits, x_t, x_0.long()[:, None], is_last, *kernels)
        return kl[:, 0]

    def q_log_prob(self, x_t: Tensor, x_0: Tensor, t: Tensor) -> Tensor:
        """log q(x_t | x_0) of whole label maps up to a constant, for x_0 of A raters (B x A x H x W): B x A.

        It is n log( (1 + (C-1) abar_t) / (1 - abar_t) ), with n the number of pixels at which x_t equals x_0.
        """
        num_equal = (x_0 == x_t[:, None]).sum((2, 3))
        return num_equal * self._log_odds(t)[:, None]

    def evidence(self, logits: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """Add what x_t itself says about x_0, log q(x_t | x_0), if the config asks for it: B x C x H x W."""
        if not self.config.evidence:
            return logits
        logits = at_least_float32(logits)
        return logits + per_pixel(self._log_odds(t), logits.dtype) * self._is_class(x_t)

    def _log_odds(self, t: Tensor) -> Tensor:
        """log of q(x_t = c | x_0 = c) / q(x_t = c | x_0 = k) for k != c: B."""
        abar = self.alpha_bar[t]
        return torch.log1p((self.num_classes - 1) * abar) - torch.log1p(-abar)

    def prior_kl(self) -> Tensor:
        """KL( q(x_T | x_0) || uniform ) of one pixel, in nats, the same for every x_0: a scalar."""
        last = torch.tensor([self.time_steps], device=self.alpha_bar.device)
        last_kernel = self.kernel(last, 0, self.alpha_bar.dtype)
        same, other, num_classes = last_kernel.same.squeeze(), last_kernel.other.squeeze(), self.num_classes
        return torch.xlogy(same, num_classes * same) + (num_classes - 1) * torch.xlogy(other, num_classes * other)

    def _mixed(self, p_x_0: Tensor, is_x_t: Tensor, t: Tensor, s: Tensor) -> Tensor:
        """B_k = sum over x_0 of q(x_s = k | x_0) p(x_0) / q(x_t | x_0), in O(C): B x C x H x W."""
        full, past = self.kernel(t, 0, p_x_0.dtype), self.kernel(s, 0, p_x_0.dtype)
        w = p_x_0 / full.keep.mul(is_x_t).add_(full.other)
        return past.keep * w + past.other * w.sum(1, keepdim=True)

    def _is_class(self, x: Tensor) -> Tensor:
        return x[:, None] == torch.arange(self.num_classes, dtype=x.dtype, device=x.device)[:, None, None]


def get_process(num_classes: int, **params: Any) -> UniformDiffusion:
    """Create the process for C classes; `params` are the fields of `UniformConfig`.

    Raises:
        ValidationError: for parameters that `UniformConfig` refuses.
        UserError: for a schedule that does not decrease from 1 to 0.
    """
    config = UniformConfig(**params)
    table = alpha_bar_table(config.beta_schedule, config.time_steps, **config.beta_schedule_params)
    return UniformDiffusion(num_classes, table, config)
