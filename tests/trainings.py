"""What tests of training look at it with."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tensorboard.backend.event_processing.event_accumulator import IMAGES, EventAccumulator

from datasets.loading import TrainingBatch, training_batches
from ddpm_train import Training

Train = Callable[..., dict[str, Any]]


def batches_of(training: Training) -> list[TrainingBatch]:
    """The batches of all steps."""
    settings = training.settings
    return list(
        training_batches(
            training.data, settings.dataset_pipeline_train, settings.batch_size, 0, training.total_steps, 0, workers=0
        )
    )


def events(folder: Path) -> EventAccumulator:
    """What a run told TensorBoard."""
    return EventAccumulator(str(folder), size_guidance={IMAGES: 0}).Reload()
