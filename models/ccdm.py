"""CCDM: a network and a diffusion process, with the two operations that users call: `loss` and `sample`."""

import contextlib
import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from diffusion.likelihood import bits_per_pixel
from diffusion.objective import LossConfig, training_loss, uniform_times
from diffusion.process import Process
from diffusion.samplers import Denoiser, SamplingConfig, Step, prior_sample, reverse_process
from models.chunking import chunk_size, run_in_chunks
from models.cuda_graph import CudaGraph
from models.dino import Encoder, check_encoder
from models.progress import Progress
from models.samples import SampleChunk, Samples
from models.tiling import TiledNetwork, TileGrid
from utils.errors import UserError
from utils.noise import derive_key, image_keys

DEFAULT_SAMPLING, DEFAULT_LOSS = SamplingConfig(), LossConfig()

TensorOrNone = TypeVar("TensorOrNone", Tensor, "Tensor | None")


class CCDM(nn.Module):
    """A conditional categorical diffusion model: p(label map | image) (Zbinden et al., ICCV 2023).

    Args:
        network: maps x_t (B x H x W), t (B), images and, if there are any, their features to logits (B x C x H x W).
            Features are those of `encoder`, or of the network's method `encode` if it has one; they are computed once
            per image. Its attribute `stride` (1 if missing) is the multiple to which sides of tiles are rounded, and
            `patch_size` (1 if missing) the side of the squares of pixels that it computes on.
        process: the diffusion process.
        encoder: computes features of the images as a second condition.

    Attributes:
        precision: torch.bfloat16 runs the network under autocast; loss, softmax and posterior stay in float32.
        fill_chunks: whether all chunks of samples get the same size, as compiled and recorded networks need.
        cuda_graph: records calls of the network in sampling; see `models.runtime`.
    """

    def __init__(self, network: nn.Module, process: Process, encoder: Encoder | None = None) -> None:
        super().__init__()
        check_encoder(network, encoder)
        self.network, self.process, self.encoder = network, process, encoder
        self.precision, self.fill_chunks, self.cuda_graph = torch.float32, False, CudaGraph()

    def _apply(self, *args: Any, **kwargs: Any) -> "CCDM":
        self.cuda_graph = CudaGraph(self.cuda_graph.enabled)  # the weights may change their place in memory
        return super()._apply(*args, **kwargs)

    @property
    def device(self) -> torch.device:
        """The device of the model, to which images have to be moved."""
        return self.process.alpha_bar.device

    @property
    def side_multiple(self) -> int:
        """The sides of tiles, and of images with features, must be multiples of this number of pixels."""
        stride: int = getattr(self.network, "stride", 1)
        return stride if self.encoder is None else math.lcm(stride, self.encoder.config.architecture.patch_size)

    def forward(self, x_t: Tensor, t: Tensor, images: Tensor, features: Tensor | None = None) -> Tensor:
        """Logits of p(x_0 | x_t, image): B x C x H x W. `features` are computed if they are not given."""
        features = self.features(images) if features is None else features
        with self._autocast():
            logits = self.network(x_t, t, images, *([] if features is None else [features]))
        return self.process.evidence(logits, x_t, t)

    def features(self, images: Tensor) -> Tensor | None:
        """What encoder or network compute from images alone: B x channels x H / stride x W / stride, or None."""
        encode = self._encode
        return None if encode is None else encode(images)

    def loss(
        self,
        images: Tensor,
        labels: Tensor,
        keys: Tensor | None = None,
        class_weights: Tensor | None = None,
        *,
        config: LossConfig = DEFAULT_LOSS,
        t: Tensor | None = None,
        present: Tensor | None = None,
        rater: Tensor | None = None,
    ) -> Tensor:
        """The training loss of every image, in nats, shape B; see `diffusion.objective.training_loss`.

        With keys of shape B x K, the loss of K draws of noise, time and rater for every image, shape B x K, for which
        the features of an image are computed once.

        Args:
            images: B x channels x H x W.
            labels: label maps, integer, B x H x W, or B x A x H x W of A raters.
            keys: int64, B or B x K, of which time and noise are functions; fresh ones from PyTorch's generator if None.
            class_weights: C weights by the class of x_0; 0 excludes a class (void).
            config: what is minimised.
            t: times 1 .. T, of the shape of `keys`; uniform if None.
            present: B x A, bool, which raters labelled an image.
            rater: the rater that x_t is drawn from, int64, of the shape of `keys`; the first by default.
        """
        if keys is None:
            keys = torch.randint(2**63 - 1, (len(images),), device=images.device)
        features, shape, keys = self.features(images), keys.shape, keys.flatten()
        t = uniform_times(self.process, keys) if t is None else t.flatten()
        rater = None if rater is None else rater.flatten()
        draws = len(keys) // len(images)
        images, labels = _repeat(images, draws), _repeat(labels, draws)
        features, present = _repeat(features, draws), _repeat(present, draws)

        losses = training_loss(
            self.process, lambda x_t, t: self(x_t, t, images, features), labels, keys, t, config,
            present=present, rater=rater, class_weights=class_weights,
        )  # fmt: skip
        return losses.view(shape)

    @torch.no_grad()
    def sample(
        self,
        images: Tensor,
        num_samples: int = 1,
        sampling: SamplingConfig = DEFAULT_SAMPLING,
        seed: int = 0,
        *,
        max_batch_size: int | None = None,
        tile: tuple[int, int] | None = None,
        keys: Tensor | None = None,
        progress: Callable[[float], object] | None = None,
    ) -> Samples:
        """Sample label maps from p(label map | image).

        The noise of a sample depends only on (seed, image, index of the sample), so neither the batch nor
        `max_batch_size` changes a sample, and requesting more samples leaves the first ones unchanged.

        Args:
            images: B x channels x H x W, scaled as in training; they are moved to the model's device.
            num_samples: S, label maps per image.
            sampling: steps and sampler.
            seed: seed of the noise.
            max_batch_size: label maps or tiles per call of the network; by default as many as keep the device busy. If
                they do not fit into the memory of a CUDA device, the number is halved.
            tile: height and width of the overlapping tiles in which the network processes larger images (see
                `models.tiling`); with features, tiles also allow images of any size.
            keys: int64 of shape B that replace the digests of the images.
            progress: called with the label maps finished since the last call, a fraction, at every call of the network.

        Raises:
            UserError: for more steps than the process has, impossible numbers, or images of the wrong shape.
        """
        _check_numbers(num_samples=num_samples, max_batch_size=max_batch_size)
        images = self._on_device(images)
        labels = torch.empty((len(images), num_samples, *_size(images)), dtype=torch.uint8, device=images.device)
        total = torch.zeros((len(images), self.process.num_classes, *_size(images)), device=images.device)
        for chunk in self.iter_samples(
            images, num_samples, sampling, seed,
            max_batch_size=max_batch_size, tile=tile, keys=keys, progress=progress,
        ):  # fmt: skip
            labels[chunk.image_index, chunk.sample_index] = chunk.labels
            total.index_add_(0, chunk.image_index, chunk.probabilities.to(total.dtype))
        return Samples(labels, total / num_samples)

    @torch.no_grad()
    def iter_samples(
        self,
        images: Tensor,
        num_samples: int = 1,
        sampling: SamplingConfig = DEFAULT_SAMPLING,
        seed: int = 0,
        *,
        max_batch_size: int | None = None,
        tile: tuple[int, int] | None = None,
        keys: Tensor | None = None,
        progress: Callable[[float], object] | None = None,
    ) -> Iterator[SampleChunk]:
        """Yield the samples of `sample` in chunks, with the probabilities of every sample; arguments as there."""
        _check_numbers(num_samples=num_samples, max_batch_size=max_batch_size)
        images, sampling = self._on_device(images), sampling.resolve(self.process)
        assert sampling.steps is not None
        watched = Progress(progress, sampling.steps)
        denoiser_of = self._denoisers(images, tile, max_batch_size, watched)
        sample_keys = self._sample_keys(images, num_samples, seed, keys).flatten()
        num_classes = self.process.num_classes

        def run(pairs: Tensor) -> SampleChunk:
            image_index = pairs // num_samples
            steps = reverse_process(self.process, denoiser_of(image_index), sample_keys[pairs], _size(images), sampling)
            for step in steps:
                last: Step = step
            return SampleChunk(image_index, pairs % num_samples, last.x_s, last.probabilities[:, :num_classes])

        size = chunk_size(self.network, _size(images), images.device, max_batch_size, tile)
        pairs = torch.arange(len(sample_keys), device=images.device)
        for chunk in run_in_chunks(run, pairs, size, self.fill_chunks):
            watched.finish(len(chunk.labels))
            yield chunk

    @torch.no_grad()
    def trajectory(
        self, images: Tensor, sampling: SamplingConfig = DEFAULT_SAMPLING, seed: int = 0
    ) -> Iterator[tuple[int, Tensor]]:
        """The reverse process of the first sample of each image.

        Yields:
            t and x_t (uint8, B x H x W): x_T first, the finished label map at t = 0 last.
        """
        images = self._on_device(images)
        keys = self._sample_keys(images, 1, seed, None)[:, 0]
        denoiser = self._denoisers(images, None, None, Progress(None, 1))(
            torch.arange(len(images), device=images.device)
        )
        yield self.process.time_steps, prior_sample(self.process, keys, _size(images))
        for step in reverse_process(self.process, denoiser, keys, _size(images), sampling):
            yield step.s, step.x_s

    @torch.no_grad()
    def bits_per_pixel(self, images: Tensor, labels: Tensor, seed: int = 0) -> Tensor:
        """The bound on -log2 p(label map | image) per pixel, shape B (T network calls)."""
        images, labels = self._on_device(images), labels.to(self.device)
        keys, features = derive_key(seed, image_keys(images)), self.features(images)
        return bits_per_pixel(self.process, lambda x_t, t: self(x_t, t, images, features), labels, keys)

    def _denoisers(
        self, images: Tensor, tile: tuple[int, int] | None, max_batch_size: int | None, progress: Progress
    ) -> Callable[[Tensor], Denoiser]:
        """A function that binds the images with some indices to the network, in tiles if requested."""
        if tile is not None:
            grid = TileGrid.cover(_size(images), tile, self.side_multiple)
            if len(grid) > 1 or (self.encoder is not None and not grid.is_image):
                size = chunk_size(self.network, grid.tile, images.device, max_batch_size, tile)
                return TiledNetwork(self, self._encode, images, grid, size, progress, self.fill_chunks).denoiser
        features = self.features(images)

        def denoiser(image_index: Tensor) -> Denoiser:
            condition = images[image_index], None if features is None else features[image_index]

            def denoise(x_t: Tensor, t: Tensor) -> Tensor:
                logits = self.cuda_graph.run(self, x_t, t, *condition)
                progress.advance(len(x_t))
                return logits

            return denoise

        return denoiser

    @property
    def _encode(self) -> Callable[[Tensor], Tensor] | None:
        """Computes features; None if there are none."""
        encode: Callable[[Tensor], Tensor] | None = getattr(self.network, "encode", None)
        if self.encoder is not None or encode is None:
            return self.encoder

        def with_precision(images: Tensor) -> Tensor:
            with self._autocast():
                return encode(images)

        return with_precision

    def _autocast(self) -> AbstractContextManager[object]:
        lower = self.precision != torch.float32
        return torch.autocast(self.device.type, self.precision) if lower else contextlib.nullcontext()

    def _on_device(self, images: Tensor) -> Tensor:
        if images.dim() != 4:
            raise UserError(f"images have shape {tuple(images.shape)}, but B x channels x H x W is expected")
        return images.to(self.device)

    def _sample_keys(self, images: Tensor, num_samples: int, seed: int, keys: Tensor | None) -> Tensor:
        """One key per image and sample: int64, B x S."""
        keys = image_keys(images) if keys is None else keys.to(images.device)
        if keys.shape != (len(images),):
            raise UserError(f"keys have shape {tuple(keys.shape)}; expected one for each of {len(images)} images")
        return derive_key(seed, keys[:, None], torch.arange(num_samples, device=images.device))


def _check_numbers(**numbers: int | None) -> None:
    for name, number in numbers.items():
        if number is not None and number < 1:
            raise UserError(f"{name} is {number}; it must be at least 1")


def _repeat(tensor: TensorOrNone, draws: int) -> TensorOrNone:
    """Repeat the values of every image `draws` times in a row."""
    if tensor is None or draws == 1:
        return tensor
    return tensor.repeat_interleave(draws, 0)


def _size(images: Tensor) -> tuple[int, int]:
    return images.shape[-2], images.shape[-1]
