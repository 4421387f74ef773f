import math

import numpy as np
import pytest
import torch

from metrics import normalised_cross_correlation, predictive_entropy
from tests.metrics import reference


def test_entropy_is_in_nats():
    uniform = torch.full((1, 5, 2, 2), 0.2)
    torch.testing.assert_close(predictive_entropy(uniform), torch.full((1, 2, 2), math.log(5)))
    certain = torch.eye(5)[:1].view(1, 5, 1, 1)
    assert predictive_entropy(certain).item() == 0
    with pytest.raises(ValueError, match="expected B x C x H x W"):
        predictive_entropy(torch.rand(5))


@pytest.mark.parametrize("num_classes", [2, 4])
@pytest.mark.parametrize("eps", [1e-8, 1e-3])
def test_ncc_is_that_of_phiseg_for_any_eps(num_classes, eps):
    rng = np.random.default_rng(0)
    labels, samples = (torch.from_numpy(rng.integers(0, num_classes, (2, n, 5, 6))) for n in (3, 4))
    expected = [reference.ncc(labels[i].numpy(), samples[i].numpy(), num_classes, eps) for i in range(2)]
    np.testing.assert_allclose(normalised_cross_correlation(labels, samples, num_classes), expected, atol=1e-10)


def test_ncc_of_constant_maps_is_zero():
    sure = torch.zeros(1, 4, 5, 5, dtype=torch.uint8)
    assert normalised_cross_correlation(sure, sure, 2).item() == 0


def test_ncc_of_present_annotators():
    labels, samples = reference.random_maps(2, (1, 3, 5, 5), 1), reference.random_maps(2, (1, 4, 5, 5), 2)
    masked = normalised_cross_correlation(labels, samples, 2, torch.tensor([[True, False, True]]))
    assert torch.allclose(masked, normalised_cross_correlation(labels[:, [0, 2]], samples, 2))
