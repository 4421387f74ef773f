"""Checkpoints of the official repository, github.com/LarsDoorenbos/ccdm-stochastic-segmentation.

`python -m checkpoints.official that.pt` describes a file. Files of both branches are supported:

    main          `model`, `average_model`; if the encoder was trained also `feature_cond_encoder` and
                  `average_feature_cond_encoder`
    cityscapes    `model`, `average_model`, `cond_encoder`, `average_cond_encoder`

with or without the prefixes of wrappers (`module.`, `unet.`), as well as bare state dicts. The state of optimiser,
scheduler and engine is ignored.
"""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
import yaml
from torch import Tensor

from checkpoints.encoder_weights import ENCODERS, PATCHES, transformer_tensors
from checkpoints.files import checked_checkpoint, is_checkpoint
from checkpoints.preprocessing import Preprocessing
from checkpoints.torch_files import read_torch_file
from checkpoints.weights import check_weights, find_prefix, weights_digest
from datasets.cityscapes import Cityscapes
from diffusion import UniformConfig, alpha_bar_table
from models.build import ModelConfig, Part
from models.dino import ARCHITECTURES, EncoderConfig
from models.unet import FeatureCondition, UNet, UNetConfig
from utils.config import validate
from utils.errors import UserError, run_script
from utils.logs import LOGGER, setup_logging
from utils.paths import expand_path

State = Mapping[str, Tensor]

_LANDMARK = "time_embed.0.weight"
_UNETS = ("model", "average_model")
_TABLES = ("betas", "alphas", "cumalphas")
_DATASETS = ("datasets.lidc", "datasets.cityscapes")
_LONG_AGO = 1_000_000
"""Steps in the average: that of a whole training, which continues instead of starting again."""


def load_model_file(path: str | Path) -> dict[str, Any]:
    """The contents of a checkpoint of this software or of an official one, with the same keys except those of a run.

    An official file does not contain the dataset (`settings` names the one it was probably trained on), the attention
    heads (32 channels each are assumed) and the encoder's `source_layer` (11). Raises UserError for a file that is
    missing, damaged, contains other things than data, or comes from other software; and for an unexpected tensor or one
    with another shape, naming it.
    """
    path = expand_path(path)
    file = read_torch_file(path)
    if is_checkpoint(file):
        return checked_checkpoint(path, file)
    try:
        return translate(file)
    except UserError as error:
        raise UserError(f"{path} is neither a checkpoint of this software nor an official one: {error}") from error


def translate(file: Any) -> dict[str, Any]:
    """Convert the contents of an official file to those of a checkpoint.

    Missing averaged weights are replaced by the others, and vice versa. The weights of an encoder that was not trained
    become the entry `encoder_weights`. Raises UserError as `load_model_file`.
    """
    file = {"model": file} if _is_state(file) else file
    entries = {name: entry for name, entry in file.items() if _is_state(entry)} if isinstance(file, Mapping) else {}
    unets = {name: _unwrapped(entries[name]) for name in _UNETS if name in entries}
    if not unets:
        raise UserError("it has no tensors under `model` or `average_model`")
    model, average = (unets[name] if name in unets else next(iter(unets.values())) for name in _UNETS)
    network = infer_unet_config(average.weights)
    with torch.device("meta"):
        expected = UNet(network).state_dict()
    for name, unet in unets.items():
        check_weights(expected, unet.weights, f"`{name}`")
    encoder = _encoder(network.feature, entries)
    ignored = [str(name) for name in file if name not in unets and name not in encoder.entries]
    LOGGER.info("official checkpoint; ignored entries: %s", ", ".join(ignored) or "none")
    process = {"num_classes": network.num_classes, **average.process.model_dump(mode="json")}
    config = ModelConfig(
        network=Part(module="models.unet", params=network.model_dump(mode="json")),
        process=Part(module="diffusion.uniform", params=process),
    )
    return {
        "settings": {"dataset_file": _DATASETS[network.image_channels == 3], "dataset_params": {}},
        "preprocessing": _preprocessing(network).model_dump(mode="json"),
        **config.model_dump(mode="json"),
        **encoder.contents,
        "model": {**_prefixed("network.", model.weights), **encoder.model},
        "average": {**_prefixed("network.", average.weights), **encoder.average},
        "num_averaged": _LONG_AGO,
        "step": 0,
    }


def _preprocessing(network: UNetConfig) -> Preprocessing:
    """How the official datasets scale images: RGB with ImageNet's mean and std, grey to [-1, 1]."""
    if network.image_channels != 3:
        middle = [0.5] * network.image_channels
        return Preprocessing(image_mean=middle, image_std=middle, size=(128, 128))
    classes: dict[str, Any] = {}
    if network.num_classes == Cityscapes.num_classes:
        classes = {
            "class_names": list(Cityscapes.class_names),
            "class_colours": list(Cityscapes.class_colours),
            "void_class": Cityscapes.void_class,
        }
    return Preprocessing(
        image_mean=list(Cityscapes.image_mean), image_std=list(Cityscapes.image_std), size=(128, 256), **classes
    )


class _UNetState(NamedTuple):
    weights: State
    process: UniformConfig


class _Encoder(NamedTuple):
    """What an encoder adds to the contents and to the tensors of model and average, and the entries it comes from."""

    contents: Mapping[str, Any]
    model: State
    average: State
    entries: tuple[str, ...]


def _is_state(entry: Any) -> bool:
    if not isinstance(entry, Mapping) or len(entry) == 0:
        return False
    return all(isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in entry.items())


def _prefixed(prefix: str, weights: State) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in weights.items()}


def _unwrapped(state: State) -> _UNetState:
    """The U-Net's tensors without the prefixes of its wrappers, and the process whose tables are stored with them."""
    prefix = find_prefix(state, _LANDMARK)
    if prefix is None:
        raise UserError(f"it contains no U-Net of this kind: there is no tensor {_LANDMARK}")
    inside = {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
    others = {name: tensor for name, tensor in state.items() if not name.startswith(prefix)}
    tables = {name.rpartition(".")[2]: others.pop(name) for name in [*others] if name.rpartition(".")[2] in _TABLES}
    if others:
        raise UserError(f"the tensor {next(iter(others))} is unexpected")
    return _UNetState(inside, _process(tables))


def _process(tables: State) -> UniformConfig:
    """The process whose tables a file contains; T = 250 and the cosine schedule if it contains none."""
    if not tables.keys() >= set(_TABLES):
        return UniformConfig()
    betas, alpha_bar = tables["betas"], tables["cumalphas"]
    steps, ends = len(betas), {"first": float(betas[0]), "last": float(betas[-1])}
    candidates = (
        UniformConfig(time_steps=steps),
        UniformConfig(time_steps=steps, beta_schedule="linear", beta_schedule_params=ends),
    )
    for process in candidates:
        table = alpha_bar_table(process.beta_schedule, steps, **process.beta_schedule_params)[1:]
        if torch.allclose(table, alpha_bar.double(), atol=1e-5):
            return process
    raise UserError(f"its table of {steps} alpha-bars is neither the cosine nor a linear schedule")


def _encoder(feature: FeatureCondition | None, entries: Mapping[str, State]) -> _Encoder:
    """The encoder, recognised by its tensors, or else by the number of feature channels."""
    name = next((name for name in ENCODERS if name in entries), None)
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
            config = EncoderConfig(model=model, output_stride=feature.output_stride, train=train)
            return {**config.model_dump(mode="json"), "digest": None}
    raise UserError(f"no DINO model has features of {channels} channels from patches of {patch_size} pixels")


def main(argv: Sequence[str]) -> None:
    """Print the model in a checkpoint. Raises UserError for a file that is not a checkpoint."""
    if len(argv) != 1:
        raise UserError("usage: python -m checkpoints.official CHECKPOINT")
    setup_logging()
    contents = load_model_file(argv[0])
    millions = sum(tensor.numel() for tensor in contents["average"].values()) / 1e6
    model = {name: contents[name] for name in ("network", "process", "encoder") if contents.get(name)}
    LOGGER.info("%s: %.2f M parameters, step %d", argv[0], millions, contents["step"])
    LOGGER.info(yaml.safe_dump(model, sort_keys=False, default_flow_style=None).rstrip())


def infer_unet_config(weights: Mapping[str, Tensor]) -> UNetConfig:
    """The configuration of the network with these tensors; attention heads, which they do not show, get 32 channels.
    Raises UserError if they are not a U-Net of this kind."""
    try:
        num_classes, base = len(weights["out.2.weight"]), weights["time_embed.0.weight"].shape[1]
        levels = _levels(weights)
        widths = [len(weights[f"input_blocks.{level[0]}.0.in_layers.2.weight"]) for level in levels]
        image_channels = weights["input_blocks.0.0.weight"].shape[1] - num_classes
    except (KeyError, IndexError) as error:
        raise UserError(f"it contains no U-Net of this kind: {error} is missing") from error
    values = {
        "num_classes": num_classes,
        "image_channels": image_channels,
        "base_channels": base,
        "channel_mult": [width // base for width in widths],
        "attention_resolutions": [
            1 << depth for depth, level in enumerate(levels) if f"input_blocks.{level[0]}.1.qkv.weight" in weights
        ],
        "num_res_blocks": len(levels[0]),
    }
    plain = validate(UNetConfig, values, "its U-Net")
    feature = _feature(weights, plain)
    return plain if feature is None else validate(UNetConfig, {**values, "feature": feature}, "its U-Net")


def _levels(weights: Mapping[str, Tensor]) -> list[list[int]]:
    """For each level, the input blocks that begin with a residual block."""
    levels: list[list[int]] = [[]]
    for index in itertools.count(1):
        if f"input_blocks.{index}.0.in_layers.2.weight" in weights:
            levels[-1].append(index)
        elif f"input_blocks.{index}.0.op.weight" in weights:
            levels.append([])
        else:
            break
    return levels


def _feature(weights: Mapping[str, Tensor], plain: UNetConfig) -> FeatureCondition | None:
    """The feature condition, recognised by an input block with more channels than the block before it provides."""
    found = []
    for index, joint in plain.joints().items():
        norm = weights.get(f"input_blocks.{index}.0.in_layers.0.weight")
        if norm is not None and len(norm) > joint.channels:
            channels = len(norm) - joint.channels
            found.append(FeatureCondition(channels=channels, output_stride=joint.factor, target_layer=index))
    if len(found) > 1:
        blocks = " and ".join(str(feature.target_layer) for feature in found)
        raise UserError(f"features join at the input blocks {blocks}; only one is supported")
    return found[0] if found else None


if __name__ == "__main__":
    run_script(main, __doc__)
