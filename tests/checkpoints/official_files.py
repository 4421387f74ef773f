"""Files in the layouts of the official repository."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from models import FeatureCondition, UNet, UNetConfig
from tests import golden_rule
from tests.models import dinos

State = dict[str, Tensor]
Load = Callable[[Any], dict[str, Any]]

SMALL = UNetConfig(2, 1, 32, (1, 2), (2,), 1)
SMALL_DINO = UNetConfig(20, 3, 32, (1, 1, 1, 2), (8,), 1, feature=FeatureCondition(384, 8, 7))


def unet_state(shape: UNetConfig, sign: float = 1) -> State:
    with torch.device("meta"):
        shapes = {name: tensor.shape for name, tensor in UNet(shape).state_dict().items()}
    return {name: sign * tensor for name, tensor in golden_rule.state_dict(shapes).items()}


def wrapped(prefix: str, state: State) -> State:
    return {prefix + name: tensor for name, tensor in state.items()}


def encoder_state(**changes: Tensor) -> State:
    """As DINO lies in the official encoder."""
    return wrapped("module.extractor.model.", {**dinos.weights(), **changes})


def training_state() -> dict[str, Any]:
    """What lies beside the weights, with arrays and scalars of NumPy as schedulers leave them."""
    weight = torch.nn.Parameter(torch.ones(2))
    optimizer = torch.optim.Adam([weight], lr=1e-4)
    weight.sum().backward()
    optimizer.step()
    scheduler = {"base_lrs": np.array([1e-4]), "last_epoch": np.int64(3), "lr_lambdas": [None], "ok": np.bool_(True)}
    engine = {"epoch_length": 10, "max_epochs": 2000, "iteration": 70, "mean": np.float32(0.5), "i": np.arange(3)}
    return {"optimizer": optimizer.state_dict(), "scheduler": scheduler, "engine": engine}


def main_branch(shape: UNetConfig) -> dict[str, Any]:
    return {"model": unet_state(shape), "average_model": unet_state(shape, -1), **training_state()}


def cityscapes_branch(shape: UNetConfig) -> dict[str, Any]:
    return {**main_branch(shape), "cond_encoder": encoder_state(), "average_cond_encoder": encoder_state()}
