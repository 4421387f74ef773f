"""Sampling label maps for a user's own images: loading the model, reading image files, writing the results."""

from prediction.panel import panel
from prediction.reading import read_image
from prediction.trained import Trained, load_model

__all__ = ["Trained", "load_model", "panel", "read_image"]
