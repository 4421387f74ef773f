"""What follows from the length of a training: learning rate, horizon of the average, validations and log lines."""

import math

from training.duration import num_steps
from training.settings import TrainSettings

EMA_HORIZON = 0.1
"""Mean age of the averaged weights as a fraction of the training, if `polyak_alpha` is not set."""


class Schedule:
    """The length of a training in steps, and what follows from it.

    Args:
        settings: of the training.
        num_images: of the training split.

    Attributes:
        total_steps: steps of the whole training.
        ema_decay: decay of the average of the weights.
        validation_freq: steps between validations.
        display_freq: steps between log lines.
    """

    def __init__(self, settings: TrainSettings, num_images: int) -> None:
        self.total_steps = num_steps(settings.train_for, num_images, settings.batch_size)
        self.validation_freq = settings.validation_freq or math.ceil(self.total_steps / 4)
        self.display_freq = settings.display_freq or math.ceil(self.total_steps / 100)
        horizon = EMA_HORIZON * self.total_steps
        self.ema_decay = horizon / (1 + horizon) if settings.polyak_alpha is None else settings.polyak_alpha
        self._optim = settings.optim

    def learning_rate(self, step: int) -> float:
        """The learning rate of the step after `step` others."""
        return self._optim.rate(min(1.0, step / self.total_steps))
