"""Files in the layouts of the official repository."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from models import FeatureCondition, UNet, UNetConfig
from tests import golden_rule
from tests.models import dinos

State = dict[str, Tensor]

SMALL = UNetConfig(num_classes=2, channel_mult=(1, 2), attention_resolutions=(2,), num_res_blocks=1)
SMALL_DINO = UNetConfig(
    num_classes=20, image_channels=3, channel_mult=(1, 1, 1, 2), attention_resolutions=(8,), num_res_blocks=1,
    feature=FeatureCondition(channels=384, output_stride=8, target_layer=7),
)  # fmt: skip


def unet_state(config: UNetConfig, sign: float = 1) -> State:
    with torch.device("meta"):
        network = UNet(config)
    return {name: sign * tensor for name, tensor in golden_rule.weights_of(network).items()}


def wrapped(prefix: str, state: State) -> State:
    return {prefix + name: tensor for name, tensor in state.items()}


def encoder_state(**changes: Tensor) -> State:
    """DINO under the names of the official encoder."""
    return wrapped("module.extractor.model.", {**dinos.weights(), **changes})


def training_state() -> dict[str, Any]:
    """The other entries of an official file, with the arrays and scalars of NumPy that schedulers contain."""
    weight = torch.nn.Parameter(torch.ones(2))
    optimizer = torch.optim.Adam([weight], lr=1e-4)
    weight.sum().backward()
    optimizer.step()
    scheduler = {"base_lrs": np.array([1e-4]), "last_epoch": np.int64(3), "lr_lambdas": [None], "ok": np.bool_(True)}
    engine = {"epoch_length": 10, "max_epochs": 2000, "iteration": 70, "mean": np.float32(0.5), "i": np.arange(3)}
    return {"optimizer": optimizer.state_dict(), "scheduler": scheduler, "engine": engine}


def main_branch(config: UNetConfig) -> dict[str, Any]:
    return {"model": unet_state(config), "average_model": unet_state(config, -1), **training_state()}


def cityscapes_branch(config: UNetConfig) -> dict[str, Any]:
    return {**main_branch(config), "cond_encoder": encoder_state(), "average_cond_encoder": encoder_state()}
