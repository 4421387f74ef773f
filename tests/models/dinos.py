"""A transformer of the real size with weights by the rule, and a network small enough to take its features."""

import functools

import torch
from torch import Tensor

from models import CCDM, DinoEncoder, Encoder, EncoderConfig, FeatureCondition, FrozenEncoder, ProcessConfig, UNetConfig
from tests import golden_rule

SHAPE = EncoderConfig()
TRAINED = EncoderConfig(train=True)
NETWORK = UNetConfig(3, 3, 32, (1, 1, 1, 1), (), 1, feature=FeatureCondition(384, 8, 7))
PROCESS = ProcessConfig(time_steps=50)
SIDES = (16, 24)


@functools.cache
def weights(model: str = "dino_vits8") -> dict[str, Tensor]:
    """Tensors under timm's names. The last block's alone would do for the shapes, but the file has all."""
    with torch.device("meta"):
        stride = 16 if model.endswith("16") else 8
        shapes = {
            name: p.shape
            for name, p in DinoEncoder(EncoderConfig(model, output_stride=stride)).vit.state_dict().items()
        }
    return golden_rule.state_dict(shapes)


def encoder(shape: EncoderConfig = SHAPE) -> DinoEncoder:
    """A transformer that can be changed."""
    made = DinoEncoder(shape)
    made.vit.load_state_dict(weights(shape.model))
    return made


@functools.cache
def frozen() -> FrozenEncoder:
    """A transformer that nothing changes."""
    return FrozenEncoder(encoder())


def model(its_encoder: Encoder | None = None) -> CCDM:
    """A model whose predictions depend on its features."""
    made = CCDM(NETWORK, PROCESS, its_encoder or frozen())
    made.unet.load_state_dict(golden_rule.state_dict({name: p.shape for name, p in made.unet.state_dict().items()}))
    return made.eval()


def images(number: int, seed: int = 0) -> Tensor:
    """Images of noise."""
    return torch.randn(number, 3, *SIDES, generator=torch.Generator().manual_seed(seed))
