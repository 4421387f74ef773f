"""torch.hub finds the trained models of this repository."""

import pytest
import torch

from diffusion import SamplingConfig
from tests import tiny
from utils.noise import derive_key, uniform


@pytest.mark.parametrize("name", ["lidc_small"])
def test_trained_model_is_loaded_and_samples(name: str) -> None:
    model, preprocessing = torch.hub.load(str(tiny.ROOT), name, source="local", device="cpu")
    assert preprocessing.size == (128, 128)
    images = uniform(derive_key("image", torch.arange(1)), (1, 128, 128)) * 2 - 1
    samples = model.sample(images, 2, SamplingConfig(steps=2))
    assert samples.labels.shape == (1, 2, 128, 128)
    assert (tiny.ROOT / "weights" / f"{name}.pt").stat().st_size < 10e6
    assert (tiny.ROOT / "weights" / f"{name}.md").is_file()
