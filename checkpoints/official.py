"""Checkpoints of the official repository, github.com/LarsDoorenbos/ccdm-stochastic-segmentation.

`python -m checkpoints.official that.pt` prints what a file is. Files of both branches are read:

    main          `model`, `average_model`; where the encoder was trained also `feature_cond_encoder` and
                  `average_feature_cond_encoder`
    cityscapes    `model`, `average_model`, `cond_encoder`, `average_cond_encoder`

with the prefixes of wrappers (`module.`, `unet.`) or without, and so are bare state dicts. The state of optimiser,
scheduler and engine is not used.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
import yaml
from torch import Tensor

from checkpoints.encoder_weights import PATCHES, transformer_tensors
from checkpoints.files import checked_checkpoint, is_checkpoint, read_torch_file
from checkpoints.infer import network_of
from checkpoints.model import to_config_dict
from checkpoints.weights import check_weights, find_prefix, weights_digest
from diffusion import alpha_bar_table
from models.ccdm import ProcessConfig
from models.dino import ARCHITECTURES, EncoderConfig
from models.unet import FeatureCondition, UNet
from utils.errors import UserError, run_script
from utils.logs import LOGGER, setup_logging
from utils.paths import expand_path

State = Mapping[str, Tensor]

_LANDMARK = "time_embed.0.weight"
_UNETS = ("model", "average_model")
_ENCODERS = ("feature_cond_encoder", "cond_encoder")
_TABLES = ("betas", "alphas", "cumalphas")
_DATASETS = ("datasets.lidc", "datasets.cityscapes")
_LONG_AGO = 1_000_000
"""Steps since the average began: it is that of a whole training, and is not to start over."""


def load_model_file(path: str | Path) -> dict[str, Any]:
    """The contents of a checkpoint, be it this software's or an official one: the same keys, but for the training's.

    An official file says nothing of the data set (`settings` then names the one it was probably trained on), nor of
    the heads of the attention (32 channels each) and the encoder's `source_layer` (11).

    Raises:
        UserError: for a file that is missing, damaged, holds other things than data, or is of neither software; and,
            naming it, for a tensor without a place in the network or of another shape.
    """
    path = expand_path(path)
    file = read_torch_file(path)
    if is_checkpoint(file):
        return checked_checkpoint(path, file)
    try:
        return translate(file)
    except UserError as error:
        raise UserError(f"{path} is not a checkpoint of this software, nor an official one: {error}") from error


def translate(file: Any) -> dict[str, Any]:
    """The contents of an official file as those of a checkpoint of ours.

    A missing average is the weights themselves, and the other way round. An encoder that training left as it was comes
    as `encoder_weights`.

    Raises:
        UserError: as `load_model_file`.
    """
    file = {"model": file} if _is_state(file) else file
    entries = {name: entry for name, entry in file.items() if _is_state(entry)} if isinstance(file, Mapping) else {}
    unets = {name: _unwrapped(entries[name]) for name in _UNETS if name in entries}
    if not unets:
        raise UserError("it has no tensors under `model` or `average_model`")
    model, average = (unets[name] if name in unets else next(iter(unets.values())) for name in _UNETS)
    network = network_of(average.weights)
    with torch.device("meta"):
        expected = UNet(network).state_dict()
    for name, unet in unets.items():
        check_weights(expected, unet.weights, f"`{name}`")
    encoder = _encoder(network.feature, entries)
    unused = [str(name) for name in file if name not in unets and name not in encoder.entries]
    LOGGER.info("official checkpoint; not used of it: %s", ", ".join(unused) or "nothing")
    return {
        "settings": {"dataset_file": _DATASETS[network.image_channels == 3], "dataset_params": {}},
        "preprocessing": _preprocessing(network.image_channels),
        **to_config_dict(network, average.process),
        **encoder.contents,
        "model": {**_prefixed("unet.", model.weights), **encoder.model},
        "average": {**_prefixed("unet.", average.weights), **encoder.average},
        "num_averaged": _LONG_AGO,
        "step": 0,
    }


def _preprocessing(image_channels: int) -> dict[str, Any]:
    """How the official data sets scale images: coloured ones by ImageNet, grey ones to [-1, 1]."""
    if image_channels == 3:
        return {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
    return {"image_mean": [0.5] * image_channels, "image_std": [0.5] * image_channels}


class _UNetState(NamedTuple):
    weights: State
    process: ProcessConfig


class _Encoder(NamedTuple):
    """What an encoder adds: to the contents, to the tensors of model and average; and the entries it came from."""

    contents: Mapping[str, Any]
    model: State
    average: State
    entries: tuple[str, ...]


def _is_state(entry: Any) -> bool:
    return isinstance(entry, Mapping) and len(entry) > 0 and all(isinstance(value, Tensor) for value in entry.values())


def _prefixed(prefix: str, weights: State) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in weights.items()}


def _unwrapped(state: State) -> _UNetState:
    """The U-Net's tensors without the prefixes of its wrappers, and the process whose tables stand beside them."""
    prefix = find_prefix(state, _LANDMARK)
    if prefix is None:
        raise UserError(f"it holds no U-Net of this kind: there is no tensor {_LANDMARK}")
    inside = {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
    beside = {name: tensor for name, tensor in state.items() if not name.startswith(prefix)}
    tables = {name.rpartition(".")[2]: beside.pop(name) for name in [*beside] if name.rpartition(".")[2] in _TABLES}
    if beside:
        raise UserError(f"the tensor {next(iter(beside))} has no place here")
    return _UNetState(inside, _process(tables))


def _process(tables: State) -> ProcessConfig:
    """The process whose tables a file holds; T = 250 and the cosine schedule where it holds none."""
    if not tables.keys() >= set(_TABLES):
        return ProcessConfig()
    betas, alpha_bar = tables["betas"], tables["cumalphas"]
    steps, ends = len(betas), {"first": float(betas[0]), "last": float(betas[-1])}
    for process in (ProcessConfig(steps), ProcessConfig(steps, "linear", ends)):
        table = alpha_bar_table(process.beta_schedule, steps, **process.beta_schedule_params)[1:]
        if torch.allclose(table, alpha_bar.double(), atol=1e-5):
            return process
    raise UserError(f"its table of {steps} alpha-bars is neither the cosine nor a linear schedule")


def _encoder(feature: FeatureCondition | None, entries: Mapping[str, State]) -> _Encoder:
    """The encoder of features: as its tensors say, or else the one whose features have that many channels."""
    name = next((name for name in _ENCODERS if name in entries), None)
    if feature is None:
        return _Encoder({}, {}, {}, ())
    if name is None:
        patch_size = 16 if feature.output_stride == 16 else 8
        return _Encoder({"encoder": _described(feature, feature.channels, patch_size, train=False)}, {}, {}, ())
    names = (name, f"average_{name}")
    model, average = (transformer_tensors(entries.get(entry, entries[name]), f"`{entry}`") for entry in names)
    trained = weights_digest(model) != weights_digest(average)
    patch_size, channels = model[PATCHES].shape[-1], len(model[PATCHES])
    contents = {"encoder": _described(feature, channels, patch_size, trained)}
    if trained:
        return _Encoder(contents, _prefixed("encoder.vit.", model), _prefixed("encoder.vit.", average), names)
    return _Encoder({**contents, "encoder_weights": average}, {}, {}, names)


def _described(feature: FeatureCondition, channels: int, patch_size: int, train: bool) -> dict[str, Any]:
    for model, architecture in ARCHITECTURES.items():
        if (architecture.channels, architecture.patch_size) == (channels, patch_size):
            shape = EncoderConfig(model, output_stride=feature.output_stride, train=train)
            return {**dataclasses.asdict(shape), "digest": None}
    raise UserError(f"features of {channels} channels from patches of {patch_size} pixels join; no DINO makes these")


def main(argv: Sequence[str]) -> None:
    """Print what a checkpoint is.

    Raises:
        UserError: for a file that is none.
    """
    if len(argv) != 1:
        raise UserError("usage: python -m checkpoints.official CHECKPOINT")
    setup_logging()
    contents = load_model_file(argv[0])
    millions = sum(tensor.numel() for tensor in contents["average"].values()) / 1e6
    shape = {name: contents[name] for name in ("network", "process", "encoder") if name in contents}
    LOGGER.info("%s: %.2f M parameters, step %d", argv[0], millions, contents["step"])
    LOGGER.info(yaml.safe_dump(shape, sort_keys=False, default_flow_style=None).rstrip())


if __name__ == "__main__":
    run_script(main, __doc__)
