"""Tensors by name: checks before loading, wrapper prefixes, digests."""

import hashlib
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from utils.errors import UserError


def load_weights(model: nn.Module, weights: Mapping[str, Any], source: str = "the checkpoint") -> None:
    """Load weights of exactly the same names and shapes. Raises UserError, naming the first tensor that is missing,
    unknown, of another shape, or not finite; nothing is loaded then."""
    check_weights(model.state_dict(), weights, source)
    model.load_state_dict(weights)


def check_weights(expected: Mapping[str, Any], weights: Mapping[str, Any], source: str) -> None:
    """Check that weights have the expected names and shapes, and finite values. Raises UserError as `load_weights`."""
    for name, tensor in expected.items():
        if name not in weights:
            raise UserError(f"{source} belongs to another network: it lacks the tensor {name}")
        if not isinstance(weights[name], Tensor):
            raise UserError(f"{source} is damaged: {name} is not a tensor")
        if weights[name].is_floating_point() != tensor.is_floating_point() or not weights[name].isfinite().all():
            raise UserError(f"{source} is damaged: {name} contains other values than finite numbers of its type")
        if weights[name].shape != tensor.shape:
            raise UserError(
                f"{source} belongs to another network: {name} has shape {tuple(weights[name].shape)} there, "
                f"{tuple(tensor.shape)} here"
            )
    unknown = [name for name in weights if name not in expected]
    if unknown:
        raise UserError(f"{source} belongs to another network: it has an unexpected tensor {unknown[0]}")


def find_prefix(names: Mapping[str, Any], landmark: str) -> str | None:
    """The prefix that wrappers added to all names, found by one name that must be present; None if it is not."""
    return next((str(name).removesuffix(landmark) for name in names if str(name).endswith(landmark)), None)


def weights_digest(weights: Mapping[str, Tensor]) -> str:
    """A digest of the names and values of tensors, as hexadecimal text, on any device."""
    digest = hashlib.blake2b(digest_size=16)
    for name, tensor in weights.items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
