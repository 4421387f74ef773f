"""Pixel-wise classification as a process of one step: the baseline that shows what diffusion adds.

x_1 carries no information, so the network predicts p(x_0 | image) directly, and the loss is the cross entropy. The only
step draws all pixels at once, independently or, by `coherent`, with noise that is correlated between them.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from diffusion.process import Process, at_least_float32


class PixelwiseClassifier(Process):
    """A process with T = 1 whose x_1 is the same for all label maps: class 0 everywhere."""

    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes, torch.tensor([1.0, 0.0], dtype=torch.float64))

    def sample_prior(self, keys: Tensor, shape: tuple[int, int]) -> Tensor:
        """The only x_1: zeros, B x H x W, uint8."""
        return torch.zeros((len(keys), *shape), dtype=torch.uint8, device=keys.device)

    def q_sample(self, x_0: Tensor, t: Tensor, keys: Tensor) -> Tensor:
        """The only x_1: zeros in the shape and dtype of x_0."""
        return torch.zeros_like(x_0)

    def p_posterior(self, p_x_0: Tensor, x_t: Tensor, t: Tensor, s: Tensor) -> Tensor:
        """p(x_0 | image), B x C x H x W: s can only be 0."""
        return p_x_0

    def kl(self, logits: Tensor, x_t: Tensor, x_0: Tensor, t: Tensor) -> Tensor:
        """Cross entropy of x_0 per pixel, in nats: B x H x W."""
        target = x_0 if x_0.is_floating_point() else x_0.long()
        return F.cross_entropy(at_least_float32(logits), target, reduction="none")

    def q_log_prob(self, x_t: Tensor, x_0: Tensor, t: Tensor) -> Tensor:
        """Zeros, B x A: x_1 does not tell label maps apart."""
        return torch.zeros(x_0.shape[:2], dtype=self.alpha_bar.dtype, device=x_0.device)

    def prior_kl(self) -> Tensor:
        """Zero: x_1 is the same under both distributions."""
        return torch.zeros((), dtype=self.alpha_bar.dtype, device=self.alpha_bar.device)


def get_process(num_classes: int) -> PixelwiseClassifier:
    """Create the process for C classes."""
    return PixelwiseClassifier(num_classes)
