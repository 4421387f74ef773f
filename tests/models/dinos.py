"""A transformer of the real size with weights by the golden rule, and a small network that takes its features."""

import functools

import torch
from torch import Tensor

from checkpoints.encoder_weights import build_encoder
from diffusion.uniform import get_process
from models import CCDM, DinoEncoder, Encoder, EncoderConfig, FeatureCondition, FrozenEncoder, UNet, UNetConfig
from tests import golden_rule

CONFIG = EncoderConfig()
TRAINED = EncoderConfig(train=True)
FEATURE = FeatureCondition(channels=384, output_stride=8, target_layer=7)
NETWORK = UNetConfig(
    num_classes=3, image_channels=3, channel_mult=(1, 1, 1, 1), attention_resolutions=(), num_res_blocks=1,
    feature=FEATURE,
)  # fmt: skip
SIDES = (16, 24)


@functools.cache
def weights(model: str = "dino_vits8") -> dict[str, Tensor]:
    """Tensors under timm's names."""
    with torch.device("meta"):
        encoder = DinoEncoder(EncoderConfig(model=model, output_stride=8))
    return golden_rule.weights_of(encoder.vit)


def encoder(config: EncoderConfig = CONFIG) -> DinoEncoder:
    """An encoder that a test may change."""
    made = DinoEncoder(config)
    made.vit.load_state_dict(weights(config.model))
    return made


@functools.cache
def frozen() -> FrozenEncoder:
    """A shared encoder."""
    made = build_encoder(CONFIG, weights())
    assert isinstance(made, FrozenEncoder)
    return made


def model(its_encoder: Encoder | None = None) -> CCDM:
    """A model whose predictions depend on its features."""
    network = UNet(NETWORK)
    network.load_state_dict(golden_rule.weights_of(network))
    return CCDM(network, get_process(3, time_steps=50), its_encoder or frozen()).eval()


def images(number: int, seed: int = 0) -> Tensor:
    """Images of noise."""
    return torch.randn(number, 3, *SIDES, generator=torch.Generator().manual_seed(seed))
