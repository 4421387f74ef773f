"""What is measured: each case computes the same in the textbook way and in ours."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from benchmarks import textbook
from benchmarks.measure import Way
from benchmarks.problems import Drawings, OneHotDrawings, Size, images_of, labels_of, model_of, random_shapes
from benchmarks.textbook_metrics import ged_and_hm_iou
from datasets.cache import cached
from datasets.loading import training_batches
from diffusion.samplers import draw
from metrics import PairwiseIoU, ged_from, hm_iou_from
from training.optimisation import NonFiniteGuard, moving_average
from utils.noise import derive_key

_LEARNING_RATE, _DECAY, _ANNOTATORS, _EPOCH, _STEPS = 1e-4, 0.9999, 4, 64, 10

Case = Callable[[Size, torch.device], dict[str, Way]]


def loss(size: Size, device: torch.device) -> dict[str, Way]:
    """Loss and its gradient with respect to the logits."""
    model = model_of(size, device)
    yardstick = textbook.TextbookProcess(model.process.alpha_bar, size.num_classes)
    x_0, x_t = (labels_of(size, device, seed) for seed in (0, 1))
    hot_0, hot_t = (textbook.one_hot(x, size.num_classes) for x in (x_0, x_t))
    t = torch.arange(2, 2 + size.batch, device=device)
    logits = torch.randn(hot_0.shape, device=device).requires_grad_()

    def theirs() -> Tensor:
        return torch.autograd.grad(yardstick.loss(logits, hot_t, hot_0, t).sum(), logits)[0]

    def ours() -> Tensor:
        return torch.autograd.grad(model.process.loss(logits, x_t, x_0, t).sum(), logits)[0]

    return {"textbook": theirs, "ours": ours}


def training_step(size: Size, device: torch.device) -> dict[str, Way]:
    """Noise, loss, gradients, Adam and the average of the weights."""
    model, images, labels = model_of(size, device).train(), images_of(size, device), labels_of(size, device)
    process = textbook.TextbookProcess(model.process.alpha_bar, size.num_classes)
    network = textbook.TextbookNetwork(model.unet, model.encoder)
    yardstick = textbook.TextbookTraining(network, process, _LEARNING_RATE, _DECAY)
    hot, keys = textbook.one_hot(labels, size.num_classes), torch.arange(size.batch, device=device)
    optimizer = torch.optim.Adam(model.parameters(), lr=_LEARNING_RATE, fused=True)
    guard = NonFiniteGuard(device)
    average = moving_average(model, _DECAY, guard)

    def ours() -> None:
        optimizer.zero_grad()
        total = model.loss(images, labels, keys).sum() / size.batch
        total.backward()
        guard.inspect(optimizer, total.detach(), [p.grad for p in model.parameters() if p.grad is not None], 1)
        optimizer.step()
        average.update_parameters(model)

    return {"textbook": lambda: yardstick.step(images, hot), "ours": ours}


def sampling_step(size: Size, device: torch.device) -> dict[str, Way]:
    """One step of the reverse chain, from x_t to a draw of x_{t-1}; a chain takes as many as it has steps."""
    model, images, x_t = model_of(size, device), images_of(size, device), labels_of(size, device)
    process = textbook.TextbookProcess(model.process.alpha_bar, size.num_classes)
    network, hot = textbook.TextbookNetwork(model.unet, model.encoder), textbook.one_hot(x_t, size.num_classes)
    t, keys = torch.full((size.batch,), 100, device=device), torch.arange(size.batch, device=device)
    features = model.features(images)

    @torch.no_grad()
    def ours() -> Tensor:
        p = model(x_t, t, images, features).float().softmax(1)
        return draw(model.process.p_posterior(p, x_t, t, t - 1), derive_key(keys, 99))

    return {"textbook": lambda: textbook.sampling_step(network, process, hot, t, images), "ours": ours}


def sampling_run(size: Size, device: torch.device) -> dict[str, Way]:
    """One label map of every image, from noise, in 10 steps."""
    model, images = model_of(size, device).eval(), images_of(size, device)
    process = textbook.TextbookProcess(model.process.alpha_bar, size.num_classes)
    network = textbook.TextbookNetwork(model.unet, model.encoder).eval()
    return {
        "textbook": lambda: textbook.sampling_run(network, process, images, _STEPS),
        "ours": lambda: model.sample(images, steps=_STEPS),
    }


def ged_hm_iou(size: Size, device: torch.device) -> dict[str, Way]:
    """GED and HM-IoU of one image with 4 annotators."""
    labels, samples = (
        random_shapes(size, number, device, seed) for seed, number in enumerate((_ANNOTATORS, size.samples))
    )
    long_labels, long_samples = labels.long(), samples.long()

    def ours() -> tuple[Tensor, Tensor]:
        pairs = PairwiseIoU.from_labels(labels, samples, size.num_classes)
        return ged_from(pairs).ged, hm_iou_from(pairs)

    return {"textbook": lambda: ged_and_hm_iou(long_labels, long_samples, size.num_classes), "ours": ours}


def loader(size: Size, device: torch.device) -> dict[str, Way]:
    """One epoch of 64 images in memory, without worker processes, in batches on the device."""
    drawings, batch = Drawings(size, _EPOCH), min(16, _EPOCH)
    kept = cached(drawings, "memory", device, workers=0)

    def theirs() -> list[Tensor]:
        batches: DataLoader[Any] = DataLoader(OneHotDrawings(drawings), batch_size=batch, shuffle=True)
        return [part.to(device) for both in batches for part in both]

    def ours() -> list[Tensor]:
        batches = training_batches(kept, [], batch, 0, _EPOCH // batch, seed=0, workers=0)
        return [part.to(device) for both in batches for part in (both.images, both.labels)]

    return {"textbook": theirs, "ours": ours}


CASES: dict[str, Case] = {
    "loss": loss,
    "training-step": training_step,
    "sampling-step": sampling_step,
    "sampling-run": sampling_run,
    "ged-hm-iou": ged_hm_iou,
    "loader": loader,
}
