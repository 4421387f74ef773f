"""How a model is computed: in which precision, layout and by which compiler, as settings ask and the device allows."""

import shutil
from importlib.util import find_spec
from typing import TypeVar

import torch

from models.ccdm import CCDM
from utils.schema import Computing

AnySettings = TypeVar("AnySettings", bound=Computing)


def resolved(settings: AnySettings, device: torch.device) -> AnySettings:
    """The settings with every `auto` of `Computing` replaced by what suits the device."""
    choice = {
        "precision": "bfloat16" if _has_bfloat16(device) else "float32",
        "compile": device.type == "cuda" and _can_compile(),
        "channels_last": True,
    }
    asked = {name: getattr(settings, name) for name in choice}
    return settings.model_copy(update={name: choice[name] for name, value in asked.items() if value == "auto"})


def prepare(model: CCDM, settings: Computing) -> CCDM:
    """Set a model, in place, to be computed as `resolved` settings say. A copy has to be prepared anew."""
    model.precision = torch.bfloat16 if settings.precision == "bfloat16" else torch.float32
    if settings.channels_last:
        model.unet.to(memory_format=torch.channels_last)
    if settings.compile:
        model.unet.compile()
    return model


def _has_bfloat16(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 matrices in hardware, and not by turns through float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def _can_compile() -> bool:
    """Whether there is what PyTorch's compiler needs for CUDA: Triton, and a C compiler for what it generates."""
    return find_spec("triton") is not None and any(map(shutil.which, ("cc", "gcc", "clang")))
