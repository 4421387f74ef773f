"""Weights of a DINO vision transformer, from the Hugging Face hub or from a file."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from checkpoints.torch_files import read_torch_file
from checkpoints.weights import find_prefix, load_weights, weights_digest
from models.dino import ARCHITECTURES, DinoEncoder, Encoder, EncoderConfig, FrozenEncoder
from utils.errors import UserError
from utils.paths import expand_path

ENCODERS = ("feature_cond_encoder", "cond_encoder")
"""The entries of official checkpoints that hold an encoder; those with its averaged weights begin with `average_`."""

# full checkpoints of DINO contain student and teacher; the features of the paper are the teacher's
_ENTRIES = ("teacher", *(f"average_{name}" for name in ENCODERS), *ENCODERS)

PATCHES = "patch_embed.proj.weight"
"""The tensor by which a vision transformer is recognised: channels x 3 x patch size x patch size."""


def build_encoder(config: EncoderConfig, weights: str | Mapping[str, Tensor] | None = None) -> Encoder:
    """Build an encoder with pretrained weights, frozen unless `config.train`.

    `weights` are a file, the tensors themselves, or None to download them from the Hugging Face hub. Raises UserError
    for weights that are not available or do not fit.
    """
    encoder = DinoEncoder(config)
    tensors = weights if isinstance(weights, Mapping) else pretrained_weights(config.model, weights)
    load_weights(encoder.vit, tensors, f"the weight file of {config.model}")
    return encoder if config.train else FrozenEncoder(encoder, weights_digest(encoder.state_dict()))


def pretrained_weights(model: str, file: str | None) -> Mapping[str, Tensor]:
    """The tensors of the transformer under timm's names. Raises UserError for a file that is missing, damaged, or not
    such a transformer; without a file, if the hub cannot be reached."""
    return _from_hub(model) if file is None else transformer_tensors(_from_file(expand_path(file), model), file)


def transformer_tensors(tensors: Any, source: str) -> dict[str, Tensor]:
    """Extract the transformer's tensors: prefixes (`module.`, `backbone.`) are removed, heads left out. Raises
    UserError if there is no transformer."""
    prefix = find_prefix(tensors, PATCHES) if isinstance(tensors, Mapping) else None
    if prefix is None:
        raise UserError(f"{source} contains no vision transformer: it has no tensor {PATCHES}")
    inner = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    return {name: tensor for name, tensor in inner.items() if not name.startswith("head.")}


def _from_file(path: Path, model: str) -> Any:
    if not path.is_file():
        raise UserError(f"feature_cond_encoder.weights: there is no file {path}; {_advice(model)}")
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    contents = read_torch_file(path)
    if not isinstance(contents, Mapping):
        return contents
    return next((contents[name] for name in _ENTRIES if name in contents), contents)


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} is not a safetensors file, or it is damaged or truncated: {error}") from error


def _from_hub(model: str) -> Mapping[str, Tensor]:
    import timm

    try:
        return timm.create_model(ARCHITECTURES[model].timm_name, pretrained=True, num_classes=0).state_dict()
    except Exception as error:  # for any reason the remedy is the same
        raise UserError(
            f"the weights of {model} cannot be downloaded ({type(error).__name__}); {_advice(model)}"
        ) from error


def _advice(model: str) -> str:
    architecture = ARCHITECTURES[model]
    return (
        f"download {architecture.official_file} (github.com/facebookresearch/dino) or model.safetensors of "
        f"huggingface.co/timm/{architecture.timm_name} yourself, and name the file in feature_cond_encoder.weights"
    )
