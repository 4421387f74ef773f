"""The yardstick computes what the library computes, so that times can be compared."""

import copy
import dataclasses

import pytest
import torch
from torch import Tensor

from benchmarks import textbook
from benchmarks.problems import (
    QUICK_SIZES,
    Drawings,
    OneHotDrawings,
    images_of,
    labels_of,
    model_of,
    random_shapes,
)
from benchmarks.textbook_metrics import ged_and_hm_iou
from diffusion import UniformDiffusion, alpha_bar_table
from metrics import PairwiseIoU, ged_from, hm_iou_from
from models import CCDM
from models.runtime import apply_runtime_options
from tests.models import dinos
from utils.schema import RuntimeOptions

SIZE = QUICK_SIZES["tiny"]
CPU = torch.device("cpu")
per_classes = pytest.mark.parametrize("num_classes", [2, 20])


@pytest.fixture
def model() -> CCDM:
    return apply_runtime_options(
        model_of(SIZE, CPU), RuntimeOptions(precision="float32", compile=False, channels_last=True)
    )


def processes(num_classes: int) -> tuple[UniformDiffusion, textbook.TextbookProcess]:
    alpha_bar = alpha_bar_table("cosine", 250)
    return UniformDiffusion(num_classes, alpha_bar), textbook.TextbookProcess(alpha_bar, num_classes)


def maps(num_classes: int, seed: int) -> Tensor:
    return torch.randint(num_classes, (4, 6, 5), generator=torch.Generator().manual_seed(seed))


@per_classes
def test_posteriors_are_equal(num_classes: int) -> None:
    ours, theirs = processes(num_classes)
    x_t, x_0, t = maps(num_classes, 0), maps(num_classes, 1), torch.tensor([2, 9, 100, 250])
    hot_t, hot_0 = (textbook.one_hot(x, num_classes) for x in (x_t, x_0))
    p = torch.randn(hot_0.shape, generator=torch.Generator().manual_seed(2)).softmax(1)
    torch.testing.assert_close(
        theirs.p_posterior(hot_t, p, t), ours.p_posterior(p, x_t, t, t - 1), rtol=1e-4, atol=1e-6
    )
    expected = ours.q_posterior(x_t, x_0, t, t - 1).float()
    torch.testing.assert_close(theirs.q_posterior(hot_t, hot_0, t), expected, rtol=1e-4, atol=1e-6)


@per_classes
def test_losses_and_their_gradients_are_equal(num_classes: int) -> None:
    ours, theirs = processes(num_classes)
    x_t, x_0, t = maps(num_classes, 0), maps(num_classes, 1), torch.tensor([1, 9, 100, 250])
    hot_t, hot_0 = (textbook.one_hot(x, num_classes) for x in (x_t, x_0))
    logits = torch.randn(hot_0.shape, generator=torch.Generator().manual_seed(2)).requires_grad_()
    losses = ours.loss(logits, x_t, x_0, t), theirs.loss(logits, hot_t, hot_0, t)
    torch.testing.assert_close(*losses, rtol=1e-4, atol=1e-4)
    gradients = [torch.autograd.grad(loss.sum(), logits)[0] for loss in losses]
    torch.testing.assert_close(*gradients, rtol=1e-3, atol=1e-5)


def test_networks_and_their_gradients_are_equal(model: CCDM) -> None:
    images, x_t, t = images_of(SIZE, CPU), labels_of(SIZE, CPU), torch.tensor([3, 200])
    network = textbook.TextbookNetwork(model.unet)
    outputs = model(x_t, t, images), network(textbook.one_hot(x_t, SIZE.num_classes), t, images)
    torch.testing.assert_close(*outputs, rtol=1e-4, atol=1e-5)
    networks = model.unet, network
    ours, theirs = (
        torch.cat(
            [gradient.flatten() for gradient in torch.autograd.grad(output.square().sum(), list(net.parameters()))]
        )
        for output, net in zip(outputs, networks, strict=True)
    )
    assert (ours - theirs).norm() <= 1e-4 * theirs.norm()


def test_networks_with_features_are_equal() -> None:
    model, images = dinos.model(), dinos.images(2)
    x_t, t = torch.randint(3, (2, *dinos.SIDES), generator=torch.Generator().manual_seed(0)), torch.tensor([3, 40])
    network = textbook.TextbookNetwork(model.unet, model.encoder)
    with torch.no_grad():
        outputs = model(x_t, t, images), network(textbook.one_hot(x_t, 3), t, images)
    torch.testing.assert_close(*outputs, rtol=1e-4, atol=1e-5)


def test_sampling_run_comes_to_label_maps(model: CCDM) -> None:
    process = textbook.TextbookProcess(model.process.alpha_bar, SIZE.num_classes)
    drawn = textbook.sampling_run(textbook.TextbookNetwork(model.unet), process, images_of(SIZE, CPU), steps=5)
    assert drawn.shape == (SIZE.batch, SIZE.num_classes, SIZE.height, SIZE.width)
    assert torch.equal(drawn.sum(1), torch.ones_like(drawn[:, 0]))


def test_draws_have_the_same_distribution() -> None:
    ours, theirs = processes(3)
    x_0, t = torch.full((1, 200, 200), 2), torch.tensor([120])
    torch.manual_seed(0)
    frequencies = [
        torch.bincount(drawn.flatten(), minlength=3) / x_0.numel()
        for drawn in (
            ours.q_sample(x_0, t, torch.tensor([5])),
            theirs.q_sample(textbook.one_hot(x_0, 3), t).argmax(1),
        )
    ]
    torch.testing.assert_close(*frequencies, rtol=0, atol=0.02)


def test_training_step_moves_weights_and_average(model: CCDM) -> None:
    process = textbook.TextbookProcess(model.process.alpha_bar, SIZE.num_classes)
    training = textbook.TextbookTraining(textbook.TextbookNetwork(model.unet), process, 1e-3, 0.5)
    before = copy.deepcopy(training.network)
    loss = training.step(images_of(SIZE, CPU), textbook.one_hot(labels_of(SIZE, CPU), SIZE.num_classes))
    assert loss > 0
    for start, now, mean in zip(*(m.parameters() for m in (before, training.network, training.average)), strict=True):
        torch.testing.assert_close(mean, (start + now) / 2)
    assert any(not torch.equal(*pair) for pair in zip(before.parameters(), training.network.parameters(), strict=True))


@per_classes
def test_metrics_are_equal(num_classes: int) -> None:
    size = dataclasses.replace(SIZE, num_classes=num_classes)
    labels, samples = random_shapes(size, 4, CPU, 0), random_shapes(size, 6, CPU, 1)
    pairs = PairwiseIoU.from_labels(labels, samples, num_classes)
    ged, hm_iou = ged_and_hm_iou(labels.long(), samples.long(), num_classes)
    torch.testing.assert_close(ged, ged_from(pairs).ged)
    torch.testing.assert_close(hm_iou, hm_iou_from(pairs))
    assert 0.05 < float(hm_iou) < 0.99


def test_loaders_hold_the_same() -> None:
    plain = Drawings(SIZE, 3)
    for item, (image, hot) in zip(
        (plain[i] for i in range(3)), (OneHotDrawings(plain)[i] for i in range(3)), strict=True
    ):
        assert torch.equal(item["image"], image)
        assert torch.equal(item["labels"][0], hot.argmax(0))
