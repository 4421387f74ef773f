"""A pixel-wise classifier is a process of one step whose x_1 carries no information."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from diffusion import PixelwiseClassifier, SamplingConfig, reverse_process
from diffusion.classifier import get_process
from diffusion.likelihood import bits_per_pixel
from utils.errors import UserError
from utils.noise import derive_key

KEYS = derive_key(torch.arange(2))


def logits_and_labels() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, 40, 50, generator=generator, dtype=torch.float64)
    return logits, torch.randint(3, (2, 40, 50), generator=generator, dtype=torch.uint8)


def test_x_1_is_the_same_for_all_label_maps() -> None:
    process, (_, labels) = get_process(3), logits_and_labels()
    x_1 = process.q_sample(labels, torch.ones(2, dtype=torch.int64), KEYS)
    assert torch.equal(x_1, torch.zeros_like(labels))
    assert torch.equal(process.sample_prior(KEYS, (40, 50)), x_1)
    assert (process.time_steps, float(process.prior_kl())) == (1, 0)


def test_loss_is_the_cross_entropy() -> None:
    process, (logits, labels) = PixelwiseClassifier(3), logits_and_labels()
    x_1, t = torch.zeros_like(labels), torch.ones(2, dtype=torch.int64)
    expected = F.cross_entropy(logits, labels.long(), reduction="none")
    assert torch.equal(process.kl(logits, x_1, labels, t), expected)
    assert process.kl(logits.bfloat16(), x_1, labels, t).dtype == torch.float32
    bits = bits_per_pixel(process, lambda x_t, t: logits, labels, KEYS)
    torch.testing.assert_close(bits, expected.mean((1, 2)) / math.log(2))


def test_samples_are_independent_draws_from_the_prediction() -> None:
    logits, _ = logits_and_labels()
    sampling = SamplingConfig(sampler="ancestral")
    (step,) = reverse_process(PixelwiseClassifier(3), lambda x_t, t: logits, KEYS, (40, 50), sampling)
    assert step.s == 0
    assert torch.equal(step.probabilities, logits.softmax(1))
    counts, expected = F.one_hot(step.x_s.long(), 3).sum((0, 1, 2)), logits.softmax(1).sum((0, 2, 3))
    assert torch.allclose(counts.double(), expected, rtol=0.05)
    sampling = SamplingConfig(sampler="ancestral", last_step="argmax")
    (step,) = reverse_process(PixelwiseClassifier(3), lambda x_t, t: logits, KEYS, (40, 50), sampling)
    assert torch.equal(step.x_s.long(), logits.argmax(1))


def test_there_is_no_ddim_step() -> None:
    logits, _ = logits_and_labels()
    steps = reverse_process(
        PixelwiseClassifier(3), lambda x_t, t: logits, KEYS, (40, 50), SamplingConfig(sampler="ddim")
    )
    with pytest.raises(UserError, match="PixelwiseClassifier has no ddim step; choose sampler: coherent or ancestral"):
        next(steps)
