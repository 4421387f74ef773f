"""Networks, encoders, and CCDM, which joins them with a diffusion process. Nothing here reads files or settings."""

from models.build import ModelConfig, Part, build_network, build_process
from models.ccdm import CCDM
from models.dino import DinoEncoder, Encoder, EncoderConfig, FrozenEncoder
from models.samples import SampleChunk, Samples
from models.two_stage import TwoStage, TwoStageConfig
from models.unet import FeatureCondition, UNet, UNetConfig

__all__ = [
    "CCDM",
    "DinoEncoder",
    "Encoder",
    "EncoderConfig",
    "FeatureCondition",
    "FrozenEncoder",
    "ModelConfig",
    "Part",
    "SampleChunk",
    "Samples",
    "TwoStage",
    "TwoStageConfig",
    "UNet",
    "UNetConfig",
    "build_network",
    "build_process",
]
