"""The network in two stages: what each stage sees, and that an image is encoded once."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from diffusion import SamplingConfig
from diffusion.uniform import get_process
from models import CCDM, TwoStage, TwoStageConfig
from utils.errors import UserError
from utils.noise import derive_key

STAGE = {"channel_mult": (1,), "num_res_blocks": 1, "attention_resolutions": ()}
CONFIG = TwoStageConfig(
    num_classes=2, feature_channels=4, encoder={**STAGE, "patch_size": 2}, denoiser={**STAGE, "patch_size": 4}
)
THREE_STEPS = SamplingConfig(steps=3)


@pytest.fixture
def model() -> CCDM:
    torch.manual_seed(0)
    network = TwoStage(CONFIG)
    for parameter in network.parameters():
        if not parameter.any() and parameter.dim() > 1:
            nn.init.normal_(parameter, std=0.1)
    return CCDM(network, get_process(2, time_steps=50)).double().eval()


def images(number: int, height: int = 12, width: int = 10) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.rand(number, 1, height, width, generator=generator, dtype=torch.float64) * 2 - 1


def count_encoded(model: CCDM) -> list[int]:
    """A list that receives the number of images of every call of the encoder."""
    calls: list[int] = []
    model.network.encoder.register_forward_hook(lambda module, inputs, output: calls.append(len(output)))
    return calls


def test_an_image_is_encoded_once_whatever_the_number_of_samples_and_steps(model: CCDM) -> None:
    calls = count_encoded(model)
    model.sample(images(2), 5, THREE_STEPS, max_batch_size=3)
    assert calls == [2]


def test_tiles_are_encoded_once(model: CCDM) -> None:
    calls = count_encoded(model)
    model.sample(images(2, 24, 20), 5, THREE_STEPS, max_batch_size=3, tile=(12, 12))
    assert sum(calls) == 2 * 6


def test_draws_of_an_image_share_its_encoding_and_have_the_losses_of_single_draws(model: CCDM) -> None:
    labels = torch.randint(2, (3, 4, 12, 10), generator=torch.Generator().manual_seed(2))
    keys, rater = derive_key("test", torch.arange(3)[:, None], torch.arange(5)), torch.arange(15).view(3, 5) % 4
    present = torch.tensor([[True] * 4, [True, True, True, False], [True] * 4])
    rater = rater % present.sum(1, keepdim=True)
    calls = count_encoded(model)
    together = model.loss(images(3), labels, keys, present=present, rater=rater)
    assert calls == [3]
    single = [model.loss(images(3), labels, keys[:, draw], present=present, rater=rater[:, draw]) for draw in range(5)]
    torch.testing.assert_close(together, torch.stack(single, 1))


def test_samples_do_not_depend_on_the_batch(model: CCDM) -> None:
    whole = model.sample(images(3), 4, THREE_STEPS).labels
    parts = [model.sample(image[None], 4, THREE_STEPS, max_batch_size=3).labels for image in images(3)]
    assert torch.equal(whole, torch.cat(parts))
    assert 0.05 < whole.double().mean() < 0.95


def test_gradients_reach_both_stages_after_the_first_steps() -> None:
    torch.manual_seed(0)
    model = CCDM(TwoStage(CONFIG), get_process(2, time_steps=50))
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-3)
    for step in range(4):
        optimiser.zero_grad()
        model.loss(images(2).float(), torch.ones(2, 12, 10).long(), derive_key(step, torch.arange(2))).sum().backward()
        optimiser.step()
    unchanged = {name for name, parameter in model.named_parameters() if torch.equal(parameter, before[name])}
    assert not unchanged


def test_bfloat16_is_used_by_both_stages(model: CCDM) -> None:
    model.float().precision = torch.bfloat16
    features = model.features(images(1).float())
    assert features is not None
    assert features.dtype == torch.bfloat16
    assert model.sample(images(1).float(), 2, THREE_STEPS).labels.shape == (1, 2, 12, 10)


def test_a_second_encoder_is_refused(model: CCDM) -> None:
    encoder: Any = nn.Identity()
    with pytest.raises(UserError, match="computes features itself"):
        CCDM(model.network, model.process, encoder)
