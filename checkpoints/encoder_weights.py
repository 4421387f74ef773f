"""Weights of a DINO vision transformer: from the hub, or from a file."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from checkpoints.files import read_torch_file
from checkpoints.weights import find_prefix, load_weights
from models.dino import ARCHITECTURES, DinoEncoder, Encoder, EncoderConfig, FrozenEncoder
from utils.errors import UserError
from utils.paths import expand_path

PATCHES = "patch_embed.proj.weight"
"""The tensor that tells a vision transformer: channels x 3 x patch size x patch size."""


def build_encoder(
    shape: EncoderConfig, weights: str | Mapping[str, Tensor] | None = None, cache: str | None = None
) -> Encoder:
    """The encoder with its pretrained weights, frozen unless `shape.train`.

    Args:
        shape: what to build.
        weights: a file, the tensors themselves, or None for the hub's.
        cache: folder that keeps the features of a frozen encoder.

    Raises:
        UserError: for weights that cannot be had, or that do not fit.
    """
    encoder = DinoEncoder(shape)
    tensors = weights if isinstance(weights, Mapping) else pretrained_weights(shape.model, weights)
    load_weights(encoder.vit, tensors, f"the file of weights of {shape.model}")
    return encoder if shape.train else FrozenEncoder(encoder, None if cache is None else expand_path(cache))


def pretrained_weights(model: str, file: str | None) -> Mapping[str, Tensor]:
    """The tensors of that transformer under timm's names.

    Raises:
        UserError: for a file that is missing, damaged, or of no such transformer; without a file, where the hub cannot
            be reached.
    """
    return _from_hub(model) if file is None else transformer_tensors(_from_file(expand_path(file), model), file)


def transformer_tensors(tensors: Any, source: str) -> dict[str, Tensor]:
    """The tensors of the transformer among others: prefixes (`module.`, `backbone.`) are cut off, heads left out.

    Raises:
        UserError: where there is no transformer.
    """
    prefix = find_prefix(tensors, PATCHES) if isinstance(tensors, Mapping) else None
    if prefix is None:
        raise UserError(f"{source} holds no vision transformer: it has no tensor {PATCHES}")
    inner = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    return {name: tensor for name, tensor in inner.items() if not name.startswith("head.")}


def _from_file(path: Path, model: str) -> Any:
    if not path.is_file():
        raise UserError(f"feature_cond_encoder.weights: there is no file {path}; {_advice(model)}")
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    contents = read_torch_file(path)
    # DINO's full checkpoints hold student and teacher; the features of the paper are the teacher's
    return contents.get("teacher", contents) if isinstance(contents, Mapping) else contents


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} is not a safetensors file, or it is damaged or cut off: {error}") from error


def _from_hub(model: str) -> Mapping[str, Tensor]:
    import timm

    try:
        return timm.create_model(ARCHITECTURES[model].timm_name, pretrained=True, num_classes=0).state_dict()
    except Exception as error:  # whatever keeps the hub from answering, the remedy is the same
        raise UserError(
            f"the weights of {model} cannot be fetched ({type(error).__name__}); {_advice(model)}"
        ) from error


def _advice(model: str) -> str:
    architecture = ARCHITECTURES[model]
    return (
        f"bring {architecture.official_file} (github.com/facebookresearch/dino), or model.safetensors of "
        f"huggingface.co/timm/{architecture.timm_name}, and name it in feature_cond_encoder.weights"
    )
