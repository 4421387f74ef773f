"""Trained models for torch.hub.load(repository, name): each returns the model and how images are prepared for it."""

from pathlib import Path

from prediction.trained import Trained, load_model

dependencies = ["torch", "numpy", "pydantic"]

_WEIGHTS = Path(__file__).resolve().parent / "weights"


def lidc_small(device: str = "auto") -> Trained:
    """The small network for LIDC: lung nodules in CT slices of 128 x 128 pixels; see weights/lidc_small.md.

    Args:
        device: auto, cpu, cuda, cuda:N or mps.
    """
    return load_model(_WEIGHTS / "lidc_small.pt", device)
