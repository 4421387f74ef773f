"""An absorbing process (Austin et al. 2021): q(x_t | x_0) = Cat( abar_t e(x_0) + (1 - abar_t) e(M) ).

The mask M is one more state, C. In the reverse process a masked pixel gets its class once and keeps it.
"""

import torch
from torch import Tensor

from diffusion import Process
from diffusion.process import at_least_float32, per_pixel
from utils.noise import uniform


class MaskDiffusion(Process):
    """Each of the T steps masks the same fraction of the original pixels: abar_t = 1 - t / T."""

    def __init__(self, num_classes: int, time_steps: int) -> None:
        super().__init__(num_classes, torch.linspace(1, 0, time_steps + 1, dtype=torch.float64), num_classes + 1)

    def sample_prior(self, keys: Tensor, shape: tuple[int, int]) -> Tensor:
        return torch.full((len(keys), *shape), self.num_classes, dtype=torch.uint8, device=keys.device)

    def q_sample(self, x_0: Tensor, t: Tensor, keys: Tensor) -> Tensor:
        keep = per_pixel(self.alpha_bar[t], torch.float32)[:, 0]
        return torch.where(uniform(keys, tuple(x_0.shape[1:])) < keep, x_0, self.num_classes)

    def p_posterior(self, p_x_0: Tensor, x_t: Tensor, t: Tensor, s: Tensor) -> Tensor:
        unmask = self._unmask(t, s, p_x_0.dtype)
        from_mask = torch.cat([unmask * p_x_0, (1 - unmask).expand_as(p_x_0[:, :1])], dim=1)
        states = torch.arange(self.num_states, device=x_t.device)[:, None, None]
        return torch.where(x_t[:, None] == self.num_classes, from_mask, (x_t[:, None] == states).to(p_x_0.dtype))

    def kl(self, logits: Tensor, x_t: Tensor, x_0: Tensor, t: Tensor) -> Tensor:
        log_p = at_least_float32(logits).log_softmax(1).gather(1, x_0.long()[:, None])
        return (-self._unmask(t, t - 1, log_p.dtype) * log_p * (x_t == self.num_classes)[:, None])[:, 0]

    def prior_kl(self) -> Tensor:
        return torch.zeros((), dtype=torch.float64, device=self.alpha_bar.device)

    def _unmask(self, t: Tensor, s: Tensor, dtype: torch.dtype) -> Tensor:
        """The probability that a pixel which is masked at t has its class at s: B x 1 x 1 x 1."""
        return per_pixel((self.alpha_bar[s] - self.alpha_bar[t]) / (1 - self.alpha_bar[t]), dtype)


def get_process(num_classes: int, time_steps: int = 50) -> MaskDiffusion:
    return MaskDiffusion(num_classes, time_steps)
