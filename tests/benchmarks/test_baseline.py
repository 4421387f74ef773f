"""The baseline computes what the library computes, so that their times can be compared."""

import copy
import dataclasses

import pytest
import torch
from torch import Tensor

from benchmarks import baseline
from benchmarks.cases import QUICK_WORKLOADS
from diffusion import UniformDiffusion, alpha_bar_table
from metrics import PairwiseOverlap, ged_from, hm_iou_from
from models import CCDM, UNet

CPU = torch.device("cpu")
WORKLOAD = QUICK_WORKLOADS[0]
per_num_classes = pytest.mark.parametrize("num_classes", [2, 20])


@pytest.fixture
def model() -> CCDM:
    return WORKLOAD.model(CPU)


@pytest.fixture
def network(model: CCDM) -> baseline.BaselineNetwork:
    assert isinstance(model.network, UNet)
    return baseline.BaselineNetwork(model.network)


def processes(num_classes: int) -> tuple[UniformDiffusion, baseline.BaselineProcess]:
    alpha_bar = alpha_bar_table("cosine", 250)
    return UniformDiffusion(num_classes, alpha_bar), baseline.BaselineProcess(alpha_bar, num_classes)


def label_maps(num_classes: int, seed: int) -> Tensor:
    return torch.randint(num_classes, (4, 6, 5), generator=torch.Generator().manual_seed(seed))


@per_num_classes
def test_posteriors_agree(num_classes: int) -> None:
    process, base = processes(num_classes)
    x_t, x_0, t = label_maps(num_classes, 0), label_maps(num_classes, 1), torch.tensor([2, 9, 100, 250])
    hot_t, hot_0 = (baseline.one_hot(x, num_classes) for x in (x_t, x_0))
    p = torch.randn(hot_0.shape, generator=torch.Generator().manual_seed(2)).softmax(1)
    torch.testing.assert_close(
        base.p_posterior(hot_t, p, t), process.p_posterior(p, x_t, t, t - 1), rtol=1e-4, atol=1e-6
    )
    expected = process.q_posterior(x_t, x_0, t, t - 1).float()
    torch.testing.assert_close(base.q_posterior(hot_t, hot_0, t), expected, rtol=1e-4, atol=1e-6)


@per_num_classes
def test_losses_and_their_gradients_agree(num_classes: int) -> None:
    process, base = processes(num_classes)
    x_t, x_0, t = label_maps(num_classes, 0), label_maps(num_classes, 1), torch.tensor([1, 9, 100, 250])
    hot_t, hot_0 = (baseline.one_hot(x, num_classes) for x in (x_t, x_0))
    logits = torch.randn(hot_0.shape, generator=torch.Generator().manual_seed(2)).requires_grad_()
    losses = process.kl(logits, x_t, x_0, t).sum((1, 2)), base.loss(logits, hot_t, hot_0, t)
    torch.testing.assert_close(*losses, rtol=1e-4, atol=1e-4)
    gradients = [torch.autograd.grad(loss.sum(), logits)[0] for loss in losses]
    torch.testing.assert_close(*gradients, rtol=1e-3, atol=1e-5)


def test_networks_and_their_gradients_agree(model: CCDM, network: baseline.BaselineNetwork) -> None:
    images, x_t, t = WORKLOAD.images(CPU), WORKLOAD.labels(CPU), torch.tensor([3, 200])
    outputs = model(x_t, t, images), network(baseline.one_hot(x_t, WORKLOAD.num_classes), t, images)
    torch.testing.assert_close(*outputs, rtol=1e-4, atol=1e-5)
    optimised, base = (
        torch.cat([grad.flatten() for grad in torch.autograd.grad(output.square().sum(), list(net.parameters()))])
        for output, net in zip(outputs, (model, network), strict=True)
    )
    assert (optimised - base).norm() <= 1e-4 * base.norm()


def test_sampling_ends_with_label_maps(model: CCDM, network: baseline.BaselineNetwork) -> None:
    process = baseline.BaselineProcess(model.process.alpha_bar, WORKLOAD.num_classes)
    samples = baseline.sample(network, process, WORKLOAD.images(CPU), steps=5)
    assert samples.shape == (WORKLOAD.batch_size, WORKLOAD.num_classes, WORKLOAD.height, WORKLOAD.width)
    assert torch.equal(samples.sum(1), torch.ones_like(samples[:, 0]))


def test_draws_have_the_same_distribution() -> None:
    process, base = processes(3)
    x_0, t = torch.full((1, 200, 200), 2), torch.tensor([120])
    torch.manual_seed(0)
    x_t = process.q_sample(x_0, t, torch.tensor([5])), base.q_sample(baseline.one_hot(x_0, 3), t).argmax(1)
    frequencies = [torch.bincount(x.flatten(), minlength=3) / x.numel() for x in x_t]
    torch.testing.assert_close(*frequencies, rtol=0, atol=0.02)


def test_training_step_moves_weights_and_average(model: CCDM, network: baseline.BaselineNetwork) -> None:
    process = baseline.BaselineProcess(model.process.alpha_bar, WORKLOAD.num_classes)
    training = baseline.BaselineTraining(network, process, learning_rate=1e-3, decay=0.5)
    before = copy.deepcopy(training.network)
    loss = training.step(WORKLOAD.images(CPU), baseline.one_hot(WORKLOAD.labels(CPU), WORKLOAD.num_classes))
    assert loss > 0
    for start, now, mean in zip(*(m.parameters() for m in (before, training.network, training.average)), strict=True):
        torch.testing.assert_close(mean, (start + now) / 2)
    assert any(not torch.equal(*pair) for pair in zip(before.parameters(), training.network.parameters(), strict=True))


@per_num_classes
def test_metrics_agree(num_classes: int) -> None:
    workload = dataclasses.replace(WORKLOAD, network=WORKLOAD.network.model_copy(update={"num_classes": num_classes}))
    labels, samples = workload.annotations(4, CPU, 0), workload.annotations(6, CPU, 1)
    pairs = PairwiseOverlap.from_labels(labels, samples, num_classes)
    ged, hm_iou = baseline.ged_and_hm_iou(labels.long(), samples.long(), num_classes)
    torch.testing.assert_close(ged, ged_from(pairs).ged)
    torch.testing.assert_close(hm_iou, hm_iou_from(pairs))
    assert 0.05 < float(hm_iou) < 0.99
