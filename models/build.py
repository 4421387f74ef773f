"""Networks and processes by the dotted name of their module: what settings name and checkpoints store."""

from collections.abc import Collection
from typing import Any

from pydantic import Field, model_validator
from torch import nn

from diffusion import Process
from models.dino import EncoderConfig
from utils.config import MAX_CHANNELS, MAX_CLASSES, Config, abbreviate
from utils.errors import UserError
from utils.modules import call, import_module

NETWORKS = ("models.unet", "models.two_stage")
PROCESSES = ("diffusion.uniform", "diffusion.classifier")


class Part(Config):
    """A network or a process: the module that creates it, and the parameters of its `get_network` or `get_process`."""

    module: str
    params: dict[str, Any] = Field({})


class ModelConfig(Config):
    """Everything that is needed to build a model except its weights."""

    network: Part
    process: Part
    encoder: EncoderConfig | None = None

    @model_validator(mode="after")
    def _has_sizes(self) -> "ModelConfig":
        for name, most in (("num_classes", MAX_CLASSES), ("image_channels", MAX_CHANNELS)):
            value = self.network.params.get(name)
            if type(value) is not int or not 1 <= value <= most:
                raise ValueError(f"`network.params.{name}` is {abbreviate(value)}; expected 1 to {most}")
        return self

    @property
    def num_classes(self) -> int:
        """C, the classes of the label maps."""
        return int(self.network.params["num_classes"])

    @property
    def image_channels(self) -> int:
        """Channels of the images."""
        return int(self.network.params["image_channels"])


def build_network(part: Part, process: Process) -> nn.Module:
    """Create the network. A process with more states than classes passes `num_states` to it.

    Raises:
        UserError: if there is no such module, or it refuses the parameters.
    """
    extra = {} if process.num_states == process.num_classes else {"num_states": process.num_states}
    module = import_module(part.module, "network", NETWORKS)
    network: nn.Module = call(module, "get_network", "network_params", **{**part.params, **extra})
    return network


def build_process(part: Part) -> Process:
    """Create the process.

    Raises:
        UserError: if there is no such module, or it refuses the parameters.
    """
    process: Process = call(
        import_module(part.module, "process", PROCESSES), "get_process", "process_params", **part.params
    )
    return process


def refuse_untrusted(config: ModelConfig, trusted: Collection[str]) -> None:
    """Refuse to import modules that a file names, unless they belong to this project or the user has named them.

    Raises:
        UserError: naming the setting that allows the module.
    """
    for setting, part, ours in (("network", config.network, NETWORKS), ("process", config.process, PROCESSES)):
        if part.module not in (*ours, *trusted):
            raise UserError(
                f"the checkpoint was trained with {setting} {part.module}, which is not part of this software; "
                f"to import and run it, pass {setting}={part.module} (ddpm_predict.py: --{setting} {part.module})"
            )
