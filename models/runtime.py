"""How a model is executed: precision, memory layout and compiler."""

import shutil
from importlib.util import find_spec
from typing import Literal, TypeVar

import torch
from pydantic import Field

from models.ccdm import CCDM
from models.cuda_graph import CudaGraph
from models.norm_silu import GroupNormSiLU
from utils.config import Config
from utils.errors import UserError


class RuntimeOptions(Config):
    """Execution of the network; `auto` chooses by device. docs/benchmarks.md has the measurements."""

    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="of the network; auto: bfloat16 on CUDA devices that support it natively, float32 on CPUs"
    )
    compile: Literal["auto", "cuda_graph"] | bool = Field(
        "auto",
        description="true: torch.compile, which takes minutes; cuda_graph: kernels are recorded and replayed, with "
        "compiled normalisation, which takes seconds (experimental); auto: true on CUDA",
    )
    channels_last: Literal["auto"] | bool = Field(
        "auto", description="memory layout; auto: channels last, except for bfloat16 on CPUs"
    )


Options = TypeVar("Options", bound=RuntimeOptions)


def resolve_auto(options: Options, device: torch.device) -> Options:
    """Replace every `auto` by the choice for the device.

    The precision is float32 on every CPU, so that results agree between CPUs up to rounding. There, the backward pass
    of convolutions in bfloat16 is faster in PyTorch's default layout.

    Raises:
        UserError: for `compile: cuda_graph` on a machine that cannot do it.
    """
    on_cuda, precision = device.type == "cuda", options.precision
    if options.compile == "cuda_graph" and not (on_cuda and _can_compile()):
        raise UserError("compile: cuda_graph needs a CUDA device, Triton and a C compiler; use auto, true or false")
    if precision == "auto":
        has_bfloat16 = on_cuda and torch.cuda.is_bf16_supported(including_emulation=False)
        precision = "bfloat16" if has_bfloat16 else "float32"
    choice = {
        "precision": precision,
        "compile": on_cuda and _can_compile(),
        "channels_last": on_cuda or precision == "float32",
    }
    requested = {name: getattr(options, name) for name in choice}
    return options.model_copy(update={name: choice[name] for name, value in requested.items() if value == "auto"})


def apply_runtime_options(model: CCDM, options: RuntimeOptions) -> CCDM:
    """Apply resolved options to a model in place. A copy of the model needs them to be applied again."""
    model.precision = torch.bfloat16 if options.precision == "bfloat16" else torch.float32
    if options.channels_last:
        model.network.to(memory_format=torch.channels_last)
    if options.compile is True:
        model.network.compile()
    records = options.compile == "cuda_graph"
    for module in model.network.modules():
        if isinstance(module, GroupNormSiLU):
            module.fused = records
    model.fill_chunks, model.cuda_graph = options.compile is not False, CudaGraph(records)
    return model


def _can_compile() -> bool:
    """Whether PyTorch's compiler has what it needs for CUDA: Triton, and a C compiler for generated code."""
    return find_spec("triton") is not None and any(map(shutil.which, ("cc", "gcc", "clang")))
