"""Label maps for a user's own images: the model of a checkpoint, images as files, and what is made of the samples."""

from prediction.panel import panel
from prediction.reading import read_image
from prediction.trained import Trained, load_model

__all__ = ["Trained", "load_model", "panel", "read_image"]
