"""CCDM: the network and the diffusion process joined, with what people call: `.loss` and `.sample`."""

import dataclasses
import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn

from diffusion import UniformDiffusion, alpha_bar_table, reverse_process
from diffusion.likelihood import bits_per_pixel
from diffusion.samplers import Denoiser, LastStep, Step
from models.chunking import default_chunk_size, run_in_chunks
from models.dino import Encoder
from models.tiling import TiledNetwork, TileGrid
from models.unet import UNet, UNetConfig
from utils.errors import UserError
from utils.noise import derive_key, image_keys, uniform


@dataclasses.dataclass(frozen=True)
class ProcessConfig:
    """The settings of the diffusion process: T, the name of its schedule, and the schedule's own settings."""

    time_steps: int = 250
    beta_schedule: str = "cosine"
    beta_schedule_params: dict[str, float] = dataclasses.field(default_factory=dict)


class Samples(NamedTuple):
    """What `CCDM.sample` returns for B images and S samples of each.

    Attributes:
        labels: the drawn label maps, uint8, B x S x H x W.
        probabilities: the last step's class probabilities averaged over the samples, float32, B x C x H x W.
    """

    labels: Tensor
    probabilities: Tensor


class SampleChunk(NamedTuple):
    """M of the label maps that were asked for, as they leave the chain.

    Attributes:
        of_image: the image of each, 0 .. B-1, int64, M.
        number: the number of each among the samples of its image, 0 .. S-1, int64, M.
        labels: the drawn label maps, uint8, M x H x W.
        probabilities: the last step's class probabilities, M x C x H x W.
    """

    of_image: Tensor
    number: Tensor
    labels: Tensor
    probabilities: Tensor


@dataclasses.dataclass(frozen=True)
class SamplingOptions:
    """How label maps are drawn.

    Attributes:
        num_samples: label maps per image.
        steps: steps of the sampler, at most T; all of them by default.
        sampler: "ancestral" or "ddim" (`eta` belongs to ddim).
        seed: of the noise.
        eta: of ddim: 0 keeps most, 1 redraws every pixel.
        last_step: "argmax" as in the paper, or "draw", which makes the chain's distribution exact.
        max_batch_size: label maps or tiles that go through the network at once; by default as many as fill the device. Where
            they do not fit into a CUDA device's memory, half as many are tried.
        tile: height and width of the overlapping tiles in which the network sees larger images; see `models.tiling`.
            With tiles, features are computed for images of any size.
    """

    num_samples: int = 1
    steps: int | None = None
    sampler: str = "ancestral"
    seed: int = 0
    eta: float = 0.0
    last_step: LastStep = "argmax"
    max_batch_size: int | None = None
    tile: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if self.num_samples < 1 or (self.max_batch_size is not None and self.max_batch_size < 1):
            raise UserError(
                f"num_samples ({self.num_samples}) and max_batch_size ({self.max_batch_size}) must be at least 1"
            )

    def at_once(self, size: tuple[int, int], device: torch.device) -> int:
        """Label maps of that size at once. Of those larger than a tile, the device's measure bounds them anyhow."""
        if self.max_batch_size is None:
            return default_chunk_size(*size, device)
        return self.max_batch_size if self.tile is None else min(self.max_batch_size, default_chunk_size(*size, device))


class CCDM(nn.Module):
    """A conditional categorical diffusion model: p(label map | image) (Zbinden et al., ICCV 2023).

    Where `precision` is torch.bfloat16, the U-Net's matrix products are computed in it; all else stays as it is.
    """

    def __init__(self, network: UNetConfig, process: ProcessConfig, encoder: Encoder | None = None) -> None:
        super().__init__()
        _check_encoder(network, encoder)
        self.unet = UNet(network)
        self.encoder = encoder
        table = alpha_bar_table(process.beta_schedule, process.time_steps, **process.beta_schedule_params)
        self.process = UniformDiffusion(network.num_classes, table)
        self.is_classifier = process.beta_schedule == "single_jump"
        self.precision = torch.float32

    def forward(self, x_t: Tensor, t: Tensor, images: Tensor, features: Tensor | None = None) -> Tensor:
        """Logits of p(x_0 | x_t, image): B x C x H x W. Without `features` they are computed. See `UNet.forward`."""
        if self.is_classifier:  # x_t is pure noise, which a classifier need not see
            x_t = torch.zeros_like(x_t)
        features = self.features(images) if features is None else features
        if self.precision == torch.float32:
            return self.unet(x_t, t, images, features)
        with torch.autocast(images.device.type, self.precision):
            return self.unet(x_t, t, images, features)

    @property
    def side_multiple(self) -> int:
        """What both sides of a tile, and of an image with features, have to be multiples of, in pixels."""
        patch = 1 if self.encoder is None else self.encoder.shape.architecture.patch_size
        return math.lcm(self.unet.shape.stride, patch)

    def features(self, images: Tensor) -> Tensor | None:
        """The second condition of images, B x channels x H / stride x W / stride, where the network takes one."""
        return None if self.encoder is None else self.encoder(images)

    def loss(self, images: Tensor, labels: Tensor, keys: Tensor, class_weights: Tensor | None = None) -> Tensor:
        """The training loss of every image, in nats: shape B. Divide its sum by the global batch size.

        Args:
            images: B x channels x H x W.
            labels: one annotator's label map of each image, integer, B x H x W.
            keys: int64 of shape B; the time and the noise are functions of it.
            class_weights: C weights by the class of x_0; 0 leaves a class (void) out.
        """
        self._check(images)
        t = 1 + uniform(derive_key(keys, "t"), (1,))[:, 0].mul_(self.process.time_steps).long()
        x_t = self.process.q_sample(labels, t, derive_key(keys, "x_t"))
        logits = self(x_t, t, images)
        return self.process.loss(logits, x_t, labels, t, class_weights)

    @torch.no_grad()
    def sample(
        self,
        images: Tensor,
        num_samples: int = 1,
        steps: int | None = None,
        sampler: str = "ancestral",
        seed: int = 0,
        *,
        eta: float = 0.0,
        last_step: LastStep = "argmax",
        max_batch_size: int | None = None,
        tile: tuple[int, int] | None = None,
        keys: Tensor | None = None,
    ) -> Samples:
        """Draw label maps from p(label map | image).

        The noise of a sample depends on (seed, image, number of the sample) alone, so neither the batch an image is
        in nor `max_batch_size` changes what is drawn, and asking for more samples leaves the first ones as they were.

        Args:
            images: B x channels x H x W, scaled as in training; they are moved to the model's device.
            keys: int64 of shape B in the place of the images' digests.
            num_samples, steps, sampler, seed, eta, last_step, max_batch_size, tile: see `SamplingOptions`.

        Raises:
            UserError: for an unknown sampler, impossible numbers, or images of the wrong shape.
        """
        options = SamplingOptions(num_samples, steps, sampler, seed, eta, last_step, max_batch_size, tile)
        images = images.to(self.process.alpha_bar.device)
        packs, shape = self.packs(images, options, keys), _size(images)
        labels = torch.empty((len(images), num_samples, *shape), dtype=torch.uint8, device=images.device)
        total = torch.zeros((len(images), self.process.num_classes, *shape), device=images.device)
        for pack in packs:
            labels[pack.of_image, pack.number] = pack.labels
            total.index_add_(0, pack.of_image, pack.probabilities.to(total.dtype))
        return Samples(labels, total / num_samples)

    def packs(self, images: Tensor, options: SamplingOptions, keys: Tensor | None = None) -> Iterator[SampleChunk]:
        """What `sample` draws, with the probabilities of every sample, at most `max_batch_size` at a time; see there."""
        self._check(images)
        return self._packs(images, self._sample_keys(images, options.num_samples, options.seed, keys), options)

    @torch.no_grad()
    def trajectory(
        self, images: Tensor, steps: int | None = None, sampler: str = "ancestral", seed: int = 0, *, eta: float = 0.0
    ) -> Iterator[Step]:
        """The chain of the first sample of each image, step by step, for film strips."""
        self._check(images)
        keys, options = self._sample_keys(images, 1, seed, None)[:, 0], SamplingOptions(1, steps, sampler, eta=eta)
        denoiser = self._denoisers(images, options)(torch.arange(len(images), device=images.device))
        yield from self._chain(denoiser, keys, _size(images), options)

    @torch.no_grad()
    def bits_per_pixel(self, images: Tensor, labels: Tensor, seed: int = 0) -> Tensor:
        """The bound on -log2 p(label map | image) per pixel, float64 of shape B (T network calls)."""
        self._check(images)
        keys, features = derive_key(seed, image_keys(images)), self.features(images)
        return bits_per_pixel(self.process, lambda x_t, t: self(x_t, t, images, features), labels, keys)

    @torch.no_grad()
    def _packs(self, images: Tensor, pair_keys: Tensor, options: SamplingOptions) -> Iterator[SampleChunk]:
        denoisers, num_samples = self._denoisers(images, options), pair_keys.shape[1]

        def draw(pairs: Tensor) -> SampleChunk:
            of_image = pairs // num_samples
            chain = self._chain(denoisers(of_image), pair_keys.flatten()[pairs], _size(images), options)
            for step in chain:
                last = step
            return SampleChunk(of_image, pairs % num_samples, last.x_s, last.probabilities)

        size = options.at_once(_size(images), images.device)
        yield from run_in_chunks(draw, torch.arange(pair_keys.numel(), device=images.device), size)

    def _denoisers(self, images: Tensor, options: SamplingOptions) -> Callable[[Tensor], Denoiser]:
        """Gives the network with the images of some indices bound to it, in tiles where they ask for them."""
        if options.tile is not None:
            grid = TileGrid.over(_size(images), options.tile, self.side_multiple)
            if len(grid) > 1 or (self.encoder is not None and not grid.is_image):
                return TiledNetwork(self, self.encoder, images, grid, options.at_once(grid.tile, images.device)).of
        features = self.features(images)

        def bound(of_image: Tensor) -> Denoiser:
            theirs = images[of_image], None if features is None else features[of_image]
            return lambda x_t, t: self(x_t, t, *theirs)

        return bound

    def _chain(
        self, denoiser: Denoiser, keys: Tensor, size: tuple[int, int], options: SamplingOptions
    ) -> Iterator[Step]:
        return reverse_process(
            self.process,
            denoiser,
            keys,
            size,
            steps=self.process.time_steps if options.steps is None else options.steps,
            sampler=options.sampler,
            eta=options.eta,
            last_step=options.last_step,
        )

    def _sample_keys(self, images: Tensor, num_samples: int, seed: int, keys: Tensor | None) -> Tensor:
        keys = image_keys(images) if keys is None else keys
        return derive_key(seed, keys[:, None], torch.arange(num_samples, device=images.device))

    def _check(self, images: Tensor) -> None:
        channels = self.unet.shape.image_channels
        if images.dim() != 4 or images.shape[1] != channels:
            raise UserError(f"images of shape {tuple(images.shape)}; the network takes batch x {channels} x H x W")


def _size(images: Tensor) -> tuple[int, int]:
    return images.shape[-2], images.shape[-1]


def _check_encoder(network: UNetConfig, encoder: Encoder | None) -> None:
    feature = network.feature
    if (feature is None) != (encoder is None):
        raise UserError("features need both a network that takes them and an encoder that makes them; one is missing")
    if feature is None or encoder is None:
        return
    made = encoder.shape.architecture.channels, encoder.shape.output_stride
    if made != (feature.channels, feature.output_stride):
        raise UserError(
            f"the network takes {feature.channels} channels of features at stride {feature.output_stride}; "
            f"{encoder.shape.model} makes {made[0]} at stride {made[1]}"
        )
    if network.image_channels != 3:
        raise UserError(f"{encoder.shape.model} takes images of 3 channels; these have {network.image_channels}")
