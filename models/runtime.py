"""How a model is computed: in which precision, layout and by which compiler, as settings ask and the device allows."""

import shutil
from importlib.util import find_spec
from typing import TypeVar

import torch

from models.ccdm import CCDM
from utils.schema import RuntimeOptions

AnySettings = TypeVar("AnySettings", bound=RuntimeOptions)


def resolve_auto(settings: AnySettings, device: torch.device) -> AnySettings:
    """The settings with every `auto` of `RuntimeOptions` replaced by what suits the device.

    On a CPU `precision` becomes float32, whatever its instructions, so that all CPUs agree but for rounding.
    """
    on_cuda = device.type == "cuda"
    choice = {
        "precision": "bfloat16" if on_cuda and torch.cuda.is_bf16_supported(including_emulation=False) else "float32",
        "compile": on_cuda and _can_compile(),
        "channels_last": True,
    }
    asked = {name: getattr(settings, name) for name in choice}
    return settings.model_copy(update={name: choice[name] for name, value in asked.items() if value == "auto"})


def apply_runtime_options(model: CCDM, settings: RuntimeOptions) -> CCDM:
    """Set a model, in place, to be computed as `resolve_auto` settings say. A copy has to be prepared anew."""
    model.precision = torch.bfloat16 if settings.precision == "bfloat16" else torch.float32
    if settings.channels_last:
        model.unet.to(memory_format=torch.channels_last)
    if settings.compile:
        model.unet.compile()
    return model


def _can_compile() -> bool:
    """Whether there is what PyTorch's compiler needs for CUDA: Triton, and a C compiler for what it generates."""
    return find_spec("triton") is not None and any(map(shutil.which, ("cc", "gcc", "clang")))
