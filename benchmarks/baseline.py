"""The baseline: one-hot float label maps, explicit C x C and attention matrices, PyTorch's own distributions."""

import copy
import math

import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn
from torch.distributions import OneHotCategorical
from torch.utils.checkpoint import checkpoint

from models.dino import Encoder
from models.layers import AttentionBlock
from models.unet import UNet


def one_hot(labels: Tensor, num_classes: int) -> Tensor:
    """B x H x W integers as B x C x H x W floats."""
    return F.one_hot(labels.long(), num_classes).movedim(-1, 1).float()


def draw(probabilities: Tensor) -> Tensor:
    """One-hot draws from class probabilities, both B x C x H x W."""
    return OneHotCategorical(probabilities.movedim(1, -1), validate_args=True).sample().movedim(-1, 1)


class BaselineProcess:
    """The uniform process by its definition; x_t, x_0 and p(x_0) are B x C x H x W."""

    def __init__(self, alpha_bar: Tensor, num_classes: int) -> None:
        self.alpha_bar = alpha_bar.float()
        self.alpha = F.pad(alpha_bar[1:] / alpha_bar[:-1], (1, 0), value=1.0).float()
        self.num_classes = num_classes

    def q_sample(self, x_0: Tensor, t: Tensor) -> Tensor:
        """Draw x_t given x_0."""
        return draw(self._forward(x_0, self.alpha_bar[t]))

    def q_posterior(self, x_t: Tensor, x_0: Tensor, t: Tensor) -> Tensor:
        """q(x_{t-1} | x_t, x_0), normalised by its sum."""
        product = self._forward(x_t, self.alpha[t]) * self._forward(x_0, self.alpha_bar[t - 1])
        return product / product.sum(1, keepdim=True)

    def p_posterior(self, x_t: Tensor, p_x_0: Tensor, t: Tensor) -> Tensor:
        """p(x_{t-1} | x_t): the posteriors of all x_0 (B x C x C x H x W), averaged over p(x_0)."""
        every_x_0 = torch.eye(self.num_classes, device=x_t.device)[None, :, :, None, None]
        past = self._forward(every_x_0, self.alpha_bar[t - 1][:, None])
        product = self._forward(x_t, self.alpha[t])[:, :, None] * past
        return torch.einsum("bkchw,bchw->bkhw", product / product.sum(1, keepdim=True), p_x_0)

    def loss(self, logits: Tensor, x_t: Tensor, x_0: Tensor, t: Tensor) -> Tensor:
        """KL( q(x_{t-1} | x_t, x_0) || p(x_{t-1} | x_t) ) summed over the pixels of each image: B."""
        p = self.p_posterior(x_t, logits.softmax(1), t)
        kl = F.kl_div(p.clamp(min=1e-12).log(), self.q_posterior(x_t, x_0, t), reduction="none")
        return kl.sum((1, 2, 3))

    def _forward(self, x: Tensor, keep: Tensor) -> Tensor:
        keep = keep[..., None, None, None]
        return keep * x + (1 - keep) / self.num_classes


class ExplicitAttention(nn.Module):
    """`AttentionBlock` with an explicit attention matrix, recomputed in the backward pass."""

    def __init__(self, block: AttentionBlock) -> None:
        super().__init__()
        self.norm, self.qkv, self.proj_out, self.num_heads = block.norm, block.qkv, block.proj_out, block.num_heads

    def forward(self, x: Tensor) -> Tensor:
        return checkpoint(self._attend, x, use_reentrant=False)

    def _attend(self, x: Tensor) -> Tensor:
        pixels = x.flatten(2)
        q, k, v = self.qkv(self.norm(pixels)).unflatten(1, (self.num_heads, 3, -1)).unbind(2)
        scores = torch.einsum("bhcq,bhck->bhqk", q, k) / q.shape[2] ** 0.5
        h = torch.einsum("bhqk,bhck->bhcq", scores.softmax(-1), v)
        return x + self.proj_out(h.flatten(1, 2)).view_as(x)


class BaselineNetwork(nn.Module):
    """A copy of a U-Net with explicit attention, and with features that are computed in every call."""

    def __init__(self, unet: UNet, encoder: Encoder | None = None, precision: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.encoder, self.precision = encoder, precision
        self.unet = copy.deepcopy(unet).to(memory_format=torch.contiguous_format)
        for block in (*self.unet.input_blocks, self.unet.middle_block, *self.unet.output_blocks):
            for index, layer in enumerate(block):
                if isinstance(layer, AttentionBlock):
                    block[index] = ExplicitAttention(layer)

    def forward(self, x_t: Tensor, t: Tensor, images: Tensor) -> Tensor:
        """Logits for one-hot x_t. The U-Net takes integers: the conversion is under 1 % of the time."""
        with torch.autocast(images.device.type, self.precision, enabled=self.precision != torch.float32):
            features = None if self.encoder is None else self.encoder(images)
            return self.unet(x_t.argmax(1), t, images, features).float()


class BaselineTraining:
    """Adam with PyTorch's defaults, an EMA updated parameter by parameter, and the loss read at every step."""

    def __init__(self, network: BaselineNetwork, process: BaselineProcess, learning_rate: float, decay: float) -> None:
        self.network, self.process, self.decay = network, process, decay
        self.average = copy.deepcopy(self.network)
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=learning_rate)

    def step(self, images: Tensor, x_0: Tensor) -> float:
        """One training step on images and their one-hot label maps; returns the loss."""
        t = torch.randint(1, len(self.process.alpha_bar), (len(images),), device=images.device)
        x_t = self.process.q_sample(x_0, t)
        loss = self.process.loss(self.network(x_t, t, images), x_t, x_0, t).sum() / len(images)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        with torch.no_grad():
            for mean, parameter in zip(self.average.parameters(), self.network.parameters(), strict=True):
                mean.mul_(self.decay).add_(parameter, alpha=1 - self.decay)
        return loss.item()


@torch.no_grad()
def sample(network: BaselineNetwork, process: BaselineProcess, images: Tensor, steps: int) -> Tensor:
    """One-hot label maps in `steps` steps, with the one-step posterior across the gaps as in the official code."""
    shape = (len(images), process.num_classes, *images.shape[-2:])
    x = draw(torch.full(shape, 1 / process.num_classes, device=images.device))
    for k in range(steps, 0, -1):
        t = torch.full((len(images),), (len(process.alpha_bar) - 1) * k // steps, device=images.device)
        x = draw(process.p_posterior(x, network(x, t, images).softmax(1), t))
    return x


def pairwise_iou(a: Tensor, b: Tensor, num_classes: int) -> Tensor:
    """Mean IoU over the foreground classes, with masks of B x N x M x H x W: B x N x M for a (B x N x H x W) and b."""
    scores = []
    for label in range(1, num_classes):
        mask_a, mask_b = (a == label).long()[:, :, None], (b == label).long()[:, None]
        intersection, union = (mask.sum((-2, -1)) for mask in (mask_a * mask_b, mask_a | mask_b))
        scores.append(torch.where(union == 0, 1.0, intersection.double() / union.clamp(min=1)))
    return torch.stack(scores).mean(0)


def ged_and_hm_iou(labels: Tensor, samples: Tensor, num_classes: int) -> tuple[Tensor, Tensor]:
    """GED and HM-IoU of every image, for labels B x A x H x W and samples B x N x H x W."""
    pairs = (labels, samples), (labels, labels), (samples, samples)
    across, among_labels, among_samples = (1 - pairwise_iou(a, b, num_classes) for a, b in pairs)
    ged = 2 * across.mean((1, 2)) - among_labels.mean((1, 2)) - among_samples.mean((1, 2))
    size, matched = math.lcm(labels.shape[1], samples.shape[1]), []
    for distance in across:
        repeated = distance.repeat(size // distance.shape[0], size // distance.shape[1])
        matched.append(1 - repeated[linear_sum_assignment(repeated)].mean())
    return ged, torch.stack(matched)
