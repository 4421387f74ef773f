"""Features as the second condition of the model: computed once, shared by samples and steps, frozen or trained."""

import copy

import pytest
import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from diffusion import SamplingConfig
from diffusion.uniform import get_process
from models import CCDM, DinoEncoder, EncoderConfig, FrozenEncoder, UNet, UNetConfig
from tests import tiny
from tests.models import dinos
from utils.errors import UserError
from utils.noise import derive_key

THREE_STEPS = SamplingConfig(steps=3, sampler="ancestral")


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many images went through the transformer, call by call."""
    counted: list[int] = []
    forward = DinoEncoder.forward

    def count(self: DinoEncoder, images: Tensor) -> Tensor:
        counted.append(len(images))
        return forward(self, images)

    monkeypatch.setattr(DinoEncoder, "forward", count)
    return counted


def labels(number: int) -> Tensor:
    return torch.randint(3, (number, *dinos.SIDES), generator=torch.Generator().manual_seed(0))


def loss(model: CCDM, number: int) -> Tensor:
    return model.loss(dinos.images(number), labels(number), derive_key("test", torch.arange(number)))


def test_features_are_computed_once_per_image(calls: list[int]) -> None:
    model, images = dinos.model(), dinos.images(2)
    model.sample(images, 3, THREE_STEPS, max_batch_size=4)
    assert calls == [2]
    list(model.trajectory(images, THREE_STEPS))
    model.bits_per_pixel(images, labels(2))
    loss(model, 2)
    assert calls == [2, 2, 2, 2]


def test_every_sample_gets_the_features_of_its_own_image() -> None:
    model, images = dinos.model().double(), dinos.images(3).double()
    whole = model.sample(images, 2, THREE_STEPS).labels
    alone = torch.cat([model.sample(image[None], 2, THREE_STEPS, max_batch_size=1).labels for image in images])
    assert torch.equal(whole, alone)
    assert len(whole.flatten(0, 1).flatten(1).unique(dim=0)) == 6


@torch.no_grad()
def test_predictions_depend_on_the_features() -> None:
    model, images, t = dinos.model(), dinos.images(2), torch.tensor([5, 30])
    features = model.features(images)
    assert features is not None
    assert features.shape == (2, 384, 2, 3)
    here = model(labels(2), t, images)
    assert torch.equal(model(labels(2), t, images, features), here)
    assert float((model(labels(2), t, images, -features) - here).abs().max()) > 1e-3


def moved_by_a_step(model: CCDM) -> set[str]:
    """The tensors that a training step changes."""
    before = copy.deepcopy(model.state_dict())
    optimizer = torch.optim.Adam(model.train().parameters(), lr=1e-3)
    loss(model, 2).sum().backward()
    optimizer.step()
    return {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}


def test_frozen_encoder_is_not_trained_averaged_or_saved() -> None:
    encoder = dinos.encoder()
    before = copy.deepcopy(encoder.state_dict())
    model = dinos.model(FrozenEncoder(encoder))
    average = AveragedModel(model).module
    assert moved_by_a_step(model)
    assert tiny.same(dict(encoder.state_dict()), dict(before))
    assert all(name.startswith("network.") for name in (*model.state_dict(), *dict(model.named_parameters())))
    assert average.encoder is model.encoder
    assert average.state_dict().keys() == model.state_dict().keys()


def test_trained_encoder_is_trained_and_saved() -> None:
    model = dinos.model(dinos.encoder(dinos.TRAINED))
    moved = moved_by_a_step(model)
    assert {"encoder.vit.patch_embed.proj.weight", "encoder.vit.blocks.11.attn.qkv.weight"} <= moved
    assert "encoder.vit.norm.weight" in model.state_dict().keys() - moved  # not needed for the keys


@pytest.mark.parametrize(
    ("network", "encoder", "message"),
    [
        (tiny.unet_config(3, 3), dinos.CONFIG, "one of them is missing"),
        (dinos.NETWORK, None, "one of them is missing"),
        (dinos.NETWORK, EncoderConfig(model="dino_vitb8"), "384 feature channels at .* dino_vitb8 has 768 at stride 8"),
        (
            dinos.NETWORK,
            EncoderConfig(model="dino_vits16", output_stride=16),
            "at stride 8, but dino_vits16 has 384 at stride 16",
        ),
        (dinos.NETWORK.model_copy(update={"image_channels": 1}), dinos.CONFIG, "3 channels, but the network has 1"),
    ],
)
def test_encoder_that_does_not_fit_is_refused(network: UNetConfig, encoder: EncoderConfig | None, message: str) -> None:
    with torch.device("meta"):
        built = None if encoder is None else DinoEncoder(encoder)
    with pytest.raises(UserError, match=message):
        CCDM(UNet(network), get_process(3), built)
