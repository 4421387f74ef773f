"""The network and the model: U-Net and CCDM, with the encoder of a second condition, and how they are kept."""

from models.ccdm import CCDM, Pack, ProcessShape, Samples, SamplingOptions
from models.dino import DinoEncoder, Encoder, EncoderShape, FrozenEncoder
from models.dino_weights import build_encoder
from models.saved import Shapes, check_digest, describe, restore, restore_encoder, shapes_of
from models.unet import FeatureCondition, UNet, UNetShape
from models.weights import load_weights

__all__ = [
    "CCDM",
    "DinoEncoder",
    "Encoder",
    "EncoderShape",
    "FeatureCondition",
    "FrozenEncoder",
    "Pack",
    "ProcessShape",
    "Samples",
    "SamplingOptions",
    "Shapes",
    "UNet",
    "UNetShape",
    "build_encoder",
    "check_digest",
    "describe",
    "load_weights",
    "restore",
    "restore_encoder",
    "shapes_of",
]
