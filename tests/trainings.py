"""What tests of training use: one that is stopped, one that is driven step by step, and its TensorBoard files."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from tensorboard.backend.event_processing.event_accumulator import IMAGES, EventAccumulator
from torch import Tensor

import ddpm_train
from datasets import load_dataset
from datasets.loading import TrainingBatch, training_batches
from training.schedule import Schedule
from training.settings import TrainSettings
from training.state import TrainState

Train = Callable[..., dict[str, Any]]


class StoppedError(Exception):
    """Ends a training early."""


class StartedTraining(NamedTuple):
    """A training that has not done its first step."""

    state: TrainState
    settings: TrainSettings
    schedule: Schedule

    @property
    def batches(self) -> list[TrainingBatch]:
        """The batches of all steps."""
        settings = self.settings
        data = load_dataset(settings.dataset_file, "train", settings.dataset_params)
        pipeline, batch_size = settings.dataset_pipeline_train, settings.batch_size
        return list(
            training_batches(data, pipeline, batch_size, 0, self.schedule.total_steps, settings.seed, workers=0)
        )

    def step(self, batch: TrainingBatch) -> Tensor:
        """Do one step; returns the loss."""
        return ddpm_train.train_step(self.state, batch, self.schedule, None, self.settings)


def start_training(argv: Sequence[str]) -> StartedTraining:
    """Start a training, to do its steps by hand."""
    started: list[StartedTraining] = []

    def capture(state: TrainState, batch: TrainingBatch, schedule: Schedule, *rest: Any) -> Tensor:
        started.append(StartedTraining(state, rest[-1], schedule))
        raise StoppedError

    with pytest.MonkeyPatch.context() as patch, pytest.raises(StoppedError):
        patch.setattr(ddpm_train, "train_step", capture)
        ddpm_train.main(argv)
    return started[0]


def before_step(patch: pytest.MonkeyPatch, step: int, action: Callable[[TrainingBatch], TrainingBatch]) -> None:
    """Have trainings call `action` with the batch, which it may replace, when that many steps are done."""
    train_step = ddpm_train.train_step

    def acting(state: TrainState, batch: TrainingBatch, *rest: Any) -> Tensor:
        return train_step(state, action(batch) if state.step == step else batch, *rest)

    patch.setattr(ddpm_train, "train_step", acting)


def interrupted(train: Train, step: int, name: str, *changes: str) -> None:
    """Train in a folder with that name until that many steps are done."""

    def stop(batch: TrainingBatch) -> TrainingBatch:
        raise StoppedError

    with pytest.MonkeyPatch.context() as patch, pytest.raises(StoppedError):
        before_step(patch, step, stop)
        train(name, *changes)


def events(folder: Path) -> EventAccumulator:
    """The TensorBoard files of a run."""
    return EventAccumulator(str(folder), size_guidance={IMAGES: 0}).Reload()
