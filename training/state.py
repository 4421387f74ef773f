"""The state of a training: everything that changes from step to step, and that a checkpoint has to restore."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from checkpoints.files import copy_checkpoint, save_checkpoint
from checkpoints.weights import check_weights, load_weights
from models import CCDM
from models.cuda_graph import CudaGraph
from training.ema import ExponentialMovingAverage
from training.nonfinite import NonFiniteGuard, NonFiniteSteps
from training.schedule import Schedule
from training.settings import TrainSettings
from training.time_sampling import TIME_SAMPLERS
from utils.distributed import is_main, world_size


class TrainState:
    """The state of a training, which saves and restores itself.

    Args:
        model: on its device.
        settings: of the training.
        schedule: of the training.
        description: the other entries of a checkpoint, which say what was trained on which data.

    Attributes:
        step: optimiser steps done.
        validated: the step of the last validation.
        best: the best value of each validation metric.
        cuda_graph: records the steps on a CUDA device.
    """

    def __init__(
        self, model: CCDM, settings: TrainSettings, schedule: Schedule, description: Mapping[str, Any]
    ) -> None:
        self.model, self.description = model, description
        decay = settings.optim.weight_decay
        adam = torch.optim.AdamW if decay else torch.optim.Adam
        records, rate = settings.compile == "cuda_graph" and world_size() == 1, schedule.learning_rate(0)
        self.optimizer = adam(model.parameters(), rate, weight_decay=decay, fused=True, capturable=records)
        if records:  # a number would be recorded with the step
            self.optimizer.param_groups[0]["lr"] = torch.full((), rate, device=model.device)
        self.cuda_graph = CudaGraph(records)
        self.average = ExponentialMovingAverage(model, schedule.ema_decay)
        self.guard = NonFiniteGuard(model.device)
        self.times = TIME_SAMPLERS[settings.time_sampling](model.process)
        self.step = self.validated = 0
        self.best: dict[str, float] = {}

    def set_learning_rate(self, rate: float) -> None:
        """Set the learning rate of the next step."""
        group = self.optimizer.param_groups[0]
        if isinstance(group["lr"], torch.Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate

    def state_dict(self) -> dict[str, Any]:
        """The state as plain data."""
        optimizer = self.optimizer.state_dict()
        (group,) = optimizer["param_groups"]
        return {
            "model": self.model.state_dict(),
            **self.average.state_dict(),
            "optimizer": optimizer | {"param_groups": [group | {"lr": float(group["lr"])}]},
            "step": self.step,
            "validated": self.validated,
            "best": self.best,
            "nonfinite_steps": list(self.guard.read()),
            "times": self.times.state_dict(),
        }

    def load_state_dict(self, contents: Mapping[str, Any]) -> None:
        """Continue from the contents of a checkpoint of the same model.

        Raises:
            UserError: for weights of another network.
        """
        load_weights(self.model, contents["model"])
        self.average.load_state_dict(contents)
        self._load_optimizer(contents["optimizer"]["state"])
        self.step, self.best = contents["step"], dict(contents["best"])
        self.validated = contents.get("validated", self.step)
        self.times.load_state_dict(contents.get("times", {}))
        self.guard.restore(NonFiniteSteps(*contents.get("nonfinite_steps", ())))

    def _load_optimizer(self, moments: Mapping[int, Any]) -> None:
        """Load Adam's moments; fused kernels do not check their shapes. Its parameters follow from the settings."""
        parameters, step = dict(enumerate(self.model.parameters())), torch.zeros(())
        for index, stored in moments.items():
            expected = {"step": step, "exp_avg": parameters[index], "exp_avg_sq": parameters[index]}
            check_weights(expected, stored, f"the optimizer's state {index}")
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": moments})
        for parameter, stored in self.optimizer.state.items():
            for name in ("exp_avg", "exp_avg_sq"):  # in the layout of the parameter, which fused kernels assume
                stored[name] = torch.empty_like(parameter).copy_(stored[name])

    def save(self, path: Path, *copies: Path) -> None:
        """Write a checkpoint, atomically, and give it further names; only rank 0 does.

        Raises:
            UserError: if a file cannot be written.
        """
        if is_main():
            save_checkpoint(path, {**self.description, **self.state_dict()})
            for copy in copies:
                copy_checkpoint(path, copy)
