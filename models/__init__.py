"""The network and the model: U-Net and CCDM. It knows nothing of files or training."""

from models.ccdm import CCDM, ProcessShape, Samples
from models.saved import describe, load_weights, restore, shapes_of
from models.unet import FeatureCondition, UNet, UNetShape

__all__ = [
    "CCDM",
    "FeatureCondition",
    "ProcessShape",
    "Samples",
    "UNet",
    "UNetShape",
    "describe",
    "load_weights",
    "restore",
    "shapes_of",
]
