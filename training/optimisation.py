"""The settings of the optimiser, and how the learning rate changes with the progress of a training."""

import math
from collections.abc import Callable

from pydantic import Field, model_validator

from utils.config import Config, choice_of


def polynomial(progress: float, power: float) -> float:
    """(1 - progress)^power; a power of 1 is linear."""
    return (1 - progress) ** power


def cosine(progress: float, power: float) -> float:
    """Half a period of a cosine, to the given power."""
    return ((1 + math.cos(math.pi * progress)) / 2) ** power


LR_DECAYS: dict[str, Callable[[float, float], float]] = {"polynomial": polynomial, "cosine": cosine}
"""Decays from 1 to 0 as functions of progress, from 0 to 1, and power."""


class LearningRateDecay(Config):
    """How the learning rate changes over the whole training."""

    decay: choice_of(LR_DECAYS) = Field("polynomial", description="shape of the decay")  # type: ignore[valid-type]
    power: float = Field(1.0, gt=0, description="power of the decay; a polynomial of power 1 is linear")
    warmup: float = Field(0.0, ge=0, lt=1, description="fraction of the training in which the rate rises linearly")
    min_lr: float = Field(1e-6, ge=0, description="learning rate at the end of training")


class OptimSettings(Config):
    """Adam, or AdamW if there is weight decay, and its learning rate."""

    learning_rate: float = Field(1e-4, gt=0, description="learning rate at the start, after the warm-up")
    lr_params: LearningRateDecay = LearningRateDecay()
    weight_decay: float = Field(0.0, ge=0, description="decoupled weight decay, as in AdamW")
    max_grad_norm: float | None = Field(
        None, gt=0, description="gradients of a larger norm are scaled down to it; `null`: never"
    )

    @model_validator(mode="after")
    def _floor_below_start(self) -> "OptimSettings":
        if self.lr_params.min_lr > self.learning_rate:
            raise ValueError(f"lr_params.min_lr is above learning_rate ({self.learning_rate:g})")
        return self

    def rate(self, progress: float) -> float:
        """The learning rate at a progress from 0 to 1."""
        params = self.lr_params
        rate = params.min_lr + (self.learning_rate - params.min_lr) * LR_DECAYS[params.decay](progress, params.power)
        return rate * min(1.0, progress / params.warmup) if params.warmup else rate
