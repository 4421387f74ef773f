"""Networks, encoders, and CCDM, which joins them with a diffusion process. Nothing here reads files or settings."""

from models.ccdm import CCDM, ProcessConfig, SampleChunk, Samples, SamplingOptions
from models.dino import DinoEncoder, Encoder, EncoderConfig, FrozenEncoder
from models.unet import FeatureCondition, UNet, UNetConfig

__all__ = [
    "CCDM",
    "DinoEncoder",
    "Encoder",
    "EncoderConfig",
    "FeatureCondition",
    "FrozenEncoder",
    "ProcessConfig",
    "SampleChunk",
    "Samples",
    "SamplingOptions",
    "UNet",
    "UNetConfig",
]
