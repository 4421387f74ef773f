"""The variational bound on the likelihood of a label map, for a chain whose last step is drawn (not its arg max)."""

import math

import torch
from torch import Tensor

from diffusion.process import Process
from diffusion.samplers import Denoiser
from utils.noise import derive_key


def bits_per_pixel(process: Process, denoiser: Denoiser, x_0: Tensor, keys: Tensor) -> Tensor:
    """An unbiased estimate of the bound on -log2 p(x_0 | image), divided by the number of pixels: shape B.

        -log p(x_0 | image) <= E_q sum_{t=1..T} KL_t + KL( q(x_T | x_0) || uniform )

    Every t is visited, with one draw of x_t each: T calls of the network.

    Args:
        denoiser: the network with its image bound to it.
        x_0: label maps, B x H x W.
        keys: int64 of shape B; the draws of x_t are a function of (key, t).
    """
    nats = torch.zeros(len(x_0), dtype=process.alpha_bar.dtype, device=x_0.device)
    for time in range(1, process.time_steps + 1):
        t = torch.full_like(keys, time)
        x_t = process.q_sample(x_0, t, derive_key(keys, "bound", time))
        logits = denoiser(x_t, t)
        nats += process.kl(logits.to(nats.dtype), x_t, x_0, t).mean((1, 2))
    return (nats + process.prior_kl()) / math.log(2)
