"""A model, data and settings so small that a training takes about a second."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from torch import nn

from checkpoints.files import save_checkpoint
from checkpoints.model import to_config_dict
from diffusion.uniform import get_process
from models import CCDM, ModelConfig, Part, UNet, UNetConfig
from utils.errors import UserError

ROOT = Path(__file__).resolve().parents[1]
SIDE = 8
SPLIT_SIZES = {"train": 12, "val": 4, "test": 4}
TIME_STEPS = 50


def unet_config(num_classes: int = 2, image_channels: int = 1, channel_mult: tuple[int, ...] = (1,)) -> UNetConfig:
    """The smallest network: residual blocks of 32 channels, attention only in the middle."""
    return UNetConfig(
        num_classes=num_classes, image_channels=image_channels, base_channels=32, channel_mult=channel_mult,
        attention_resolutions=(), num_res_blocks=1,
    )  # fmt: skip


def model(num_classes: int = 2, image_channels: int = 1, channel_mult: tuple[int, ...] = (1,)) -> CCDM:
    """A model whose predictions depend on all of its inputs: no layer is zero, as some are when training starts."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        network = UNet(unet_config(num_classes, image_channels, channel_mult))
        for parameter in network.parameters():
            if not parameter.any() and parameter.dim() > 1:
                nn.init.normal_(parameter, std=0.1)
    return CCDM(network, get_process(num_classes, time_steps=TIME_STEPS)).eval()


def save_model(
    path: Path,
    ccdm: CCDM | None = None,
    network: str = "models.unet",
    process: str = "diffusion.uniform",
    **entries: Any,
) -> Path:
    """Write a checkpoint of a model that was not trained; `network` and `process` are the modules it names."""
    ccdm = model() if ccdm is None else ccdm
    num_classes = ccdm.process.num_classes
    config = ModelConfig(
        network=Part(module=network, params={"num_classes": num_classes, "image_channels": 1}),
        process=Part(module=process, params={"num_classes": num_classes}),
    )
    weights = ccdm.state_dict()
    channels = ccdm.network.config.image_channels if isinstance(ccdm.network, UNet) else 1
    preprocessing = {"image_mean": [0.5] * channels, "image_std": [0.5] * channels, "size": [SIDE, SIDE]}
    contents = {"settings": {}, "preprocessing": preprocessing, "model": weights, "average": weights, "step": 0}
    save_checkpoint(path, {**contents, **to_config_dict(ccdm, config), **entries})
    return path


def images(number: int, channels: int = 1, size: tuple[int, int] = (SIDE, SIDE), seed: int = 0) -> torch.Tensor:
    """Images of Gaussian noise."""
    return torch.randn(number, channels, *size, generator=torch.Generator().manual_seed(seed))


def train_argv(data_folder: Path | None, output: Path, *changes: str) -> list[str]:
    """Arguments of a training of 9 steps with validations after the 4th, the 8th and the last.

    Without a data folder, `changes` have to name the data.
    """
    data = [] if data_folder is None else [f"dataset_params={{path: '{data_folder}', side: {SIDE}}}"]
    return [
        str(ROOT / "params.yml"),
        *data,
        f"output_path={output}",
        "device=cpu",
        "precision=float32",
        "batch_size=4",
        "train_for=3 epochs",
        f"process_params={{time_steps: {TIME_STEPS}}}",
        "network_params={patch_size: 1, base_channels: 32, channel_mult: [1], num_res_blocks: 1}",
        "network_params={attention_resolutions: [], scale_shift_norm: false}",
        "loss={raters: one, cross_entropy: 0}",
        "time_sampling=uniform",
        "polyak_alpha=0.99",
        "sampling.steps=3",
        "num_samples=4",
        "validation_freq=4",
        "display_freq=2",
        "dataset_val_max_size=2",
        "n_validation_images=2",
        *changes,
    ]


def eval_argv(checkpoint: Path, output: Path, *changes: str) -> list[str]:
    """Arguments of an evaluation of that checkpoint."""
    return [
        str(ROOT / "params_eval.yml"),
        f"load_from={checkpoint}",
        f"evaluation_path={output}",
        "device=cpu",
        "precision=float32",
        "num_samples=4",
        "sampling.steps=3",
        "n_validation_images=2",
        *changes,
    ]


def write_hdf5(path: Path, splits: Mapping[str, Mapping[str, Any]], **attributes: Any) -> Path:
    """Write an HDF5 file with a group for every split, which holds its arrays."""
    with h5py.File(path, "w") as file:
        file.attrs.update(attributes)
        for split, columns in splits.items():
            group = file.create_group(split)
            for name, column in columns.items():
                group[name] = column
    return path


def lesion_columns(
    number: int, size: tuple[int, int] = (SIDE, SIDE), num_classes: int = 2, annotators: int = 3, seed: int = 0
) -> dict[str, Any]:
    """Random images and labels of one split."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(num_classes, size=(number, annotators, *size), dtype=np.uint8)
    return {"images": rng.uniform(-0.5, 0.5, size=(number, *size)).astype(np.float32), "labels": labels}


def same(one: Any, other: Any) -> bool:
    """Whether two nests of containers, tensors and numbers are equal bit by bit."""
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, Mapping):
        return isinstance(other, Mapping) and one.keys() == other.keys() and all(same(one[k], other[k]) for k in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(same(a, b) for a, b in zip(one, other, strict=True))
    return bool(one == other)


def refusal(main: Callable[[Sequence[str]], object], argv: Sequence[str]) -> str:
    """The message of the error with which a script refuses its arguments."""
    with pytest.raises(UserError) as error:
        main(argv)
    message = str(error.value)
    assert message
    assert "\n\n" not in message
    return message
