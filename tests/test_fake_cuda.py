"""What runs on a CUDA device neither mixes devices nor waits for the device, checked with tensors without values."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import ddpm_train
from datasets.loading import TrainingBatch
from diffusion import SamplingConfig
from models import CCDM
from tests import tiny
from training.schedule import Schedule
from training.settings import TrainSettings
from training.state import TrainState
from utils.device import WITHOUT_FLOAT64, widest_float
from utils.settings import load_settings_and_recipe

CUDA = torch.device("cuda", 0)

pytestmark = pytest.mark.filterwarnings("ignore:Accessing the data pointer of FakeTensor")  # PyTorch copies it


class NoCopyToTheHost(TorchDispatchMode):
    """Fails on a copy from the device to the host, which waits for all that the device has to do before.

    Filling with a tensor on the device reads its value on the host, too.
    """

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        name = function.overloadpacket.__name__.rstrip("_")
        if name in ("masked_fill", "index_fill"):
            assert not (isinstance(args[-1], Tensor) and args[-1].is_cuda), f"{function} reads its value"
        arguments, results = (
            [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)] for tree in ((args, kwargs), result)
        )
        sources, targets = ({tensor.device.type for tensor in tensors} for tensors in (arguments, results))
        assert not ("cuda" in sources and "cpu" in targets), f"{function} copies from the device"
        if widest_float(CUDA) != torch.float64:
            doubles = [tensor for tensor in results if tensor.is_cuda and tensor.dtype == torch.float64]
            assert not doubles, f"{function} returns float64"
        return result


@pytest.fixture(params=[True, False], ids=["", "without float64"])
def model(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[CCDM]:
    """A model on the device, where reading a value raises, and so does an operation on tensors of two devices.

    Also on one that, like those of Apple, has no float64.
    """
    if not request.param:
        monkeypatch.setattr("utils.device.WITHOUT_FLOAT64", WITHOUT_FLOAT64 | {"cuda"})
    real = tiny.model()
    with FakeTensorMode(allow_non_fake_inputs=True), NoCopyToTheHost():
        yield real.to(CUDA)


@pytest.mark.parametrize(
    "changes",
    [[], ["loss.raters=all", "loss.cross_entropy=0.1"], ["time_sampling=stratified"], ["time_sampling=importance"],
     ["process_params.evidence=true", "network_params.scale_shift_norm=true"], 
     ["optim.max_grad_norm=1"], ["gradient_accumulation=2", "draws_per_image=2"]],
    ids=lambda changes: " ".join(changes) or "default",
)  # fmt: skip
def test_training_step(model: CCDM, changes: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings, _ = load_settings_and_recipe(TrainSettings, tiny.train_argv(None, tmp_path, *changes), "params.yml")
    monkeypatch.setattr(ddpm_train, "seed_from", lambda *parts: 0)  # a value on the host
    monkeypatch.setattr(Tensor, "backward", lambda loss: _set_gradients(model))  # autograd needs a real device
    schedule = Schedule(settings, 12)
    state = TrainState(model, settings, schedule, {})
    number, side = settings.batch_size, tiny.SIDE
    batch = TrainingBatch(
        torch.zeros(number, 1, side, side), torch.zeros(number, 3, side, side, dtype=torch.uint8),
        torch.ones(number, 3, dtype=torch.bool), *torch.zeros(3, number, dtype=torch.int64),
    )  # fmt: skip
    loss = ddpm_train.train_step(state, batch, schedule, None, settings)
    assert loss.device == CUDA


def _set_gradients(model: CCDM) -> None:
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)


@pytest.mark.parametrize("sampling", [{}, {"sampler": "ddim"}, {"last_step": "draw"}])
@pytest.mark.parametrize("tile", [None, (8, 8)])
def test_samples(model: CCDM, sampling: dict[str, Any], tile: tuple[int, int] | None) -> None:
    images = torch.zeros(2, 1, 20, 16, device=CUDA)
    samples = model.sample(images, 3, SamplingConfig(steps=3, **sampling), max_batch_size=2, tile=tile)
    assert samples.labels.device == samples.probabilities.device == CUDA
    assert samples.labels.shape == (2, 3, 20, 16)


def test_the_likelihood(model: CCDM) -> None:
    labels = torch.zeros(2, 8, 8, dtype=torch.uint8, device=CUDA)
    bits = model.bits_per_pixel(torch.zeros(2, 1, 8, 8, device=CUDA), labels)
    assert (bits.shape, bits.device, bits.dtype) == ((2,), CUDA, widest_float(CUDA))
