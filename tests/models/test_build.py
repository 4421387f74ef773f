"""Networks and processes are named by the dotted name of their module, and built from plain parameters."""

from typing import Any

import pytest

from diffusion import PixelwiseClassifier, UniformConfig
from models import ModelConfig, Part, UNet, build_network, build_process
from models.build import refuse_untrusted
from utils.errors import UserError

OWN_NETWORK, OWN_PROCESS = "tests.extensions.own_code.my_network", "tests.extensions.own_code.my_process"
CLASSES = {"num_classes": 3}


def config(network: str = "models.unet", process: str = "diffusion.uniform") -> ModelConfig:
    return ModelConfig(
        network=Part(module=network, params={**CLASSES, "image_channels": 2}),
        process=Part(module=process, params=CLASSES),
    )


def test_own_parts_are_built() -> None:
    process = build_process(Part(module="diffusion.uniform", params={**CLASSES, "time_steps": 100}))
    assert process.config == UniformConfig(time_steps=100)
    assert isinstance(build_process(Part(module="diffusion.classifier", params=CLASSES)), PixelwiseClassifier)
    network = build_network(config().network, process)
    assert isinstance(network, UNet)
    assert (network.config.num_classes, network.config.image_channels, network.config.num_states) == (3, 2, None)
    assert (config().num_classes, config().image_channels) == (3, 2)


@pytest.mark.parametrize("network", ["models.unet", OWN_NETWORK])
def test_network_gets_the_number_of_states_of_the_process(network: str) -> None:
    def input_channels(process: str) -> int:
        built = build_network(config(network).network, build_process(config(process=process).process))
        return next(p.shape[1] for p in built.parameters() if p.dim() == 4)

    assert input_channels(OWN_PROCESS) == input_channels("diffusion.uniform") + 1


@pytest.mark.parametrize(
    ("module", "params", "message"),
    [
        ("diffusion.uniformm", {}, "process: there is no module diffusion.uniformm; use one of diffusion.uniform"),
        ("models.unet", {}, "process: models.unet has no function `get_process`"),
        ("diffusion.uniform", {}, "process_params: missing a required argument: 'num_classes'"),
        ("diffusion.uniform", {**CLASSES, "time_step": 3}, "`time_step`; did you mean `time_steps`"),
        ("diffusion.classifier", {**CLASSES, "T": 3}, "process_params: .*'T'.*accepts: num_classes"),
    ],
)
def test_impossible_processes_are_refused(module: str, params: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        build_process(Part(module=module, params=params))


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"chanel_mult": [1]}, "network_params: unknown key `chanel_mult`; did you mean `channel_mult`"),
        ({"base_channels": 33}, "network_params: `base_channels` should be a multiple of 32, but it is 33"),
        ({"num_head_channels": 48}, "network_params: a level of 32 channels cannot be split"),
    ],
)
def test_impossible_networks_are_refused(params: dict[str, Any], message: str) -> None:
    part = Part(module="models.unet", params={**CLASSES, "image_channels": 1, **params})
    with pytest.raises(UserError, match=message):
        build_network(part, build_process(config().process))


def test_modules_named_by_a_file_are_trusted_only_if_the_user_names_them() -> None:
    refuse_untrusted(config(process="diffusion.classifier"), ())
    refuse_untrusted(config(network="os", process="mine"), ("mine", "os"))
    with pytest.raises(UserError, match=r"network os, which is not part of this software; .* network=os"):
        refuse_untrusted(config(network="os"), ("mine",))
    with pytest.raises(UserError, match=r"process mine, which is not part of this software; .* process=mine"):
        refuse_untrusted(config(process="mine"), ())
