"""The training loss: which rater x_t is drawn from, what the network is trained to predict, and at which times."""

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor

from diffusion.process import Process, at_least_float32
from utils.config import Config
from utils.noise import derive_key, uniform


class LossConfig(Config):
    """What is minimised."""

    raters: Literal["all", "one"] = Field(
        "one",
        description="`one`: the label map that x_t is drawn from; `all`: the posterior over all raters' label maps",
    )
    kl: float = Field(1.0, ge=0, description="weight of the KL divergence of the reverse step")
    cross_entropy: float = Field(0.0, ge=0, description="weight of the cross entropy of x_0")

    @model_validator(mode="after")
    def _check(self) -> "LossConfig":
        if self.kl == self.cross_entropy == 0:
            raise ValueError("one of the weights kl and cross_entropy must be positive")
        return self


def uniform_times(process: Process, keys: Tensor) -> Tensor:
    """Independent uniform times 1 .. T, a function of `keys` (int64, B): int64, B."""
    return 1 + uniform(derive_key(keys, "t"), (1,))[:, 0].mul_(process.time_steps).long()


def training_loss(
    process: Process,
    denoiser: Callable[[Tensor, Tensor], Tensor],
    labels: Tensor,
    keys: Tensor,
    t: Tensor,
    config: LossConfig,
    *,
    present: Tensor | None = None,
    rater: Tensor | None = None,
    class_weights: Tensor | None = None,
) -> Tensor:
    """The training loss of every image, in nats: summed over pixels, shape B.

    With `raters: all` the target is the posterior over the A label maps of an image given x_t,

        r = sum_b w_b e(x_0^b),    w = softmax_b log q(x_t | x_0^b)

    so that the gradient has the same expectation as with the one rater that x_t was drawn from, and at most its
    variance. With weights of the classes, each e(x_0^b) counts with that of its class.

    Args:
        denoiser: the network with its images bound to it.
        labels: label maps, integer, B x H x W, or B x A x H x W of A raters.
        keys: int64 of shape B; the noise is a function of them.
        t: times 1 .. T, int64, B.
        present: B x A, bool, which raters labelled an image; all by default.
        rater: the rater that x_t is drawn from, int64, B; the first by default.
        class_weights: C weights by the class of x_0; 0 excludes a class (void).
    """
    x_0 = labels
    if labels.dim() == 4:
        rater = torch.zeros_like(keys) if rater is None else rater
        x_0 = labels[torch.arange(len(labels), device=labels.device), rater]
    x_t = process.q_sample(x_0, t, derive_key(keys, "x_t"))
    logits = at_least_float32(denoiser(x_t, t))
    target = x_0
    if config.raters == "all" and labels.dim() == 4 and labels.shape[1] > 1:
        log_prob = process.q_log_prob(x_t, labels, t)
        if present is not None:
            log_prob = log_prob.masked_fill(~present, -torch.inf)
        target = mix(labels, log_prob.softmax(1).to(logits.dtype), process.num_classes)
    pixel_weights = None
    if class_weights is not None:
        target, pixel_weights = _weighted(target, class_weights.to(logits.dtype))
    loss = torch.zeros((), dtype=logits.dtype, device=logits.device)
    if config.kl:
        loss = config.kl * process.kl(logits, x_t, target, t)
    if config.cross_entropy:
        long = target if target.is_floating_point() else target.long()
        loss = loss + config.cross_entropy * F.cross_entropy(logits, long, reduction="none")
    if pixel_weights is not None:
        loss = loss * pixel_weights
    return loss.sum((1, 2))


def _weighted(target: Tensor, class_weights: Tensor) -> tuple[Tensor, Tensor]:
    """The target, B x H x W or B x C x H x W, and the weight of each pixel, B x H x W.

    A mixture of classes becomes that of their weighted shares, whose loss has the gradient of the weighted mean of the
    classes' losses.
    """
    if not target.is_floating_point():
        return target, class_weights[target.long()]
    shares = target * class_weights[:, None, None]
    weights = shares.sum(1)
    return torch.where(weights[:, None] > 0, shares / weights[:, None], target), weights


def mix(labels: Tensor, weights: Tensor, num_classes: int) -> Tensor:
    """Weighted mean of one-hot label maps: labels B x A x H x W, weights B x A -> B x C x H x W, in their dtype."""
    if num_classes == 2:
        foreground = torch.einsum("bahw,ba->bhw", labels.to(weights.dtype), weights)
        return torch.stack([1 - foreground, foreground], 1)
    mixed = weights.new_zeros((len(labels), num_classes, *labels.shape[2:]))
    return mixed.scatter_add_(1, labels.long(), weights[:, :, None, None].expand(labels.shape))
