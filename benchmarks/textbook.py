"""The textbook way: label maps as one-hot floats, explicit matrices, PyTorch's own distributions. A yardstick only."""

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributions import OneHotCategorical
from torch.utils.checkpoint import checkpoint

from models.dino import Encoder
from models.layers import AttentionBlock, time_embedding
from models.unet import UNet


def one_hot(labels: Tensor, num_classes: int) -> Tensor:
    """Label maps (B x H x W) as floats, B x C x H x W."""
    return F.one_hot(labels.long(), num_classes).movedim(-1, 1).float()


def draw(probabilities: Tensor) -> Tensor:
    """One-hot draws from class probabilities, both B x C x H x W."""
    return OneHotCategorical(probabilities.movedim(1, -1), validate_args=True).sample().movedim(-1, 1)


class TextbookProcess:
    """The process by its definition; x_t and x_0 are one-hot, B x C x H x W, and p(x_0) has that shape too."""

    def __init__(self, alpha_bar: Tensor, num_classes: int) -> None:
        self.alpha_bar = alpha_bar.float()
        self.alpha = F.pad(alpha_bar[1:] / alpha_bar[:-1], (1, 0), value=1.0).float()
        self.num_classes = num_classes

    def q_sample(self, x_0: Tensor, t: Tensor) -> Tensor:
        """A draw of x_t given x_0."""
        return draw(self._forward(x_0, self.alpha_bar[t]))

    def q_posterior(self, x_t: Tensor, x_0: Tensor, t: Tensor) -> Tensor:
        """q(x_{t-1} | x_t, x_0), normalised by its sum."""
        product = self._forward(x_t, self.alpha[t]) * self._forward(x_0, self.alpha_bar[t - 1])
        return product / product.sum(1, keepdim=True)

    def p_posterior(self, x_t: Tensor, p_x_0: Tensor, t: Tensor) -> Tensor:
        """p(x_{t-1} | x_t): the posteriors for every x_0, B x C x C x H x W, mixed by p(x_0)."""
        every_x_0 = torch.eye(self.num_classes, device=x_t.device)[None, :, :, None, None]
        past = self._forward(every_x_0, self.alpha_bar[t - 1][:, None])
        product = self._forward(x_t, self.alpha[t])[:, :, None] * past
        table = product / product.sum(1, keepdim=True)
        return torch.einsum("bkchw,bchw->bkhw", table, p_x_0)

    def loss(self, logits: Tensor, x_t: Tensor, x_0: Tensor, t: Tensor) -> Tensor:
        """KL( q(x_{t-1} | x_t, x_0) || p(x_{t-1} | x_t) ) of every image, summed over its pixels."""
        p = self.p_posterior(x_t, logits.softmax(1), t)
        kl = F.kl_div(p.clamp(min=1e-12).log(), self.q_posterior(x_t, x_0, t), reduction="none")
        return kl.sum((1, 2, 3))

    def _forward(self, x: Tensor, keep: Tensor) -> Tensor:
        keep = keep[:, None, None, None] if keep.dim() == 1 else keep[..., None, None, None]
        return keep * x + (1 - keep) / self.num_classes


class ExplicitAttention(nn.Module):
    """`AttentionBlock` with its matrix of weights written out, and computed twice to save memory."""

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


class TextbookNetwork(nn.Module):
    """A copy of a U-Net with explicit attention, which takes one-hot label maps of sides that need no padding.

    Where it takes features, it has the encoder compute them in every call.
    """

    def __init__(self, unet: UNet, encoder: Encoder | None = None) -> None:
        super().__init__()
        self.encoder = encoder
        self.unet = copy.deepcopy(unet).to(memory_format=torch.contiguous_format)
        for block in (*self.unet.input_blocks, self.unet.middle_block, *self.unet.output_blocks):
            for index, layer in enumerate(block):
                if isinstance(layer, AttentionBlock):
                    block[index] = ExplicitAttention(layer)

    def forward(self, x_t: Tensor, t: Tensor, images: Tensor) -> Tensor:
        unet = self.unet
        embedding = unet.time_embed(time_embedding(t, unet.shape.base_channels))
        h, skips = torch.cat([x_t, images], 1), []
        for index, block in enumerate(unet.input_blocks):
            if self.encoder is not None and unet.shape.feature is not None and index == unet.shape.feature.target_layer:
                h = torch.cat([h, self.encoder(images)], 1)
            h = block(h, embedding)
            skips.append(h)
        h = unet.middle_block(h, embedding)
        for block in unet.output_blocks:
            h = block(torch.cat([h, skips.pop()], 1), embedding)
        return unet.out(h)


class TextbookTraining:
    """Adam with PyTorch's defaults, an average of the weights parameter by parameter, and the loss read every step."""

    def __init__(self, network: TextbookNetwork, process: TextbookProcess, learning_rate: float, decay: float) -> None:
        self.network, self.process, self.decay = network, process, decay
        self.average = copy.deepcopy(self.network)
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=learning_rate)

    def step(self, images: Tensor, x_0: Tensor) -> float:
        """One step on images and their one-hot label maps."""
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
def sampling_step(network: TextbookNetwork, process: TextbookProcess, x_t: Tensor, t: Tensor, images: Tensor) -> Tensor:
    """A one-hot draw of x_{t-1}."""
    return draw(process.p_posterior(x_t, network(x_t, t, images).softmax(1), t))


def sampling_run(network: TextbookNetwork, process: TextbookProcess, images: Tensor, steps: int) -> Tensor:
    """One-hot label maps from noise in so many steps: the one-step posterior across the gaps, which drifts."""
    shape = (len(images), process.num_classes, *images.shape[-2:])
    x = draw(torch.full(shape, 1 / process.num_classes, device=images.device))
    last = len(process.alpha_bar) - 1
    for k in range(steps, 0, -1):
        t = torch.full((len(images),), last * k // steps, device=images.device)
        x = sampling_step(network, process, x, t, images)
    return x
