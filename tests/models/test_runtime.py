"""Precision, layout and compiler: what `auto` chooses, and that the results stay the same."""

import pytest
import torch

from diffusion import SamplingConfig
from diffusion.samplers import draw
from models import CCDM
from models.runtime import RuntimeOptions, apply_runtime_options, resolve_auto
from tests import tiny
from utils.errors import UserError

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
PLAIN = RuntimeOptions(precision="float32", compile=False, channels_last=False)


def logits_of(model: CCDM) -> torch.Tensor:
    labels = torch.zeros(2, tiny.SIDE, tiny.SIDE, dtype=torch.uint8)
    logits: torch.Tensor = model(labels, torch.tensor([3, 40]), tiny.images(2))
    return logits


@pytest.mark.parametrize("able", [True, False])
def test_auto_uses_what_a_cuda_device_can_and_float32_on_cpus(able: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation or able)
    monkeypatch.setattr("models.runtime.find_spec", lambda name: object() if able else None)
    monkeypatch.setattr("models.runtime.shutil.which", lambda name: f"/bin/{name}")
    precision = "bfloat16" if able else "float32"
    assert resolve_auto(RuntimeOptions(), CUDA) == RuntimeOptions(precision=precision, compile=able, channels_last=True)
    assert resolve_auto(RuntimeOptions(), CPU) == RuntimeOptions(precision="float32", compile=False, channels_last=True)


def test_recording_needs_a_cuda_device() -> None:
    with pytest.raises(UserError, match="cuda_graph needs a CUDA device"):
        resolve_auto(RuntimeOptions(compile="cuda_graph"), CPU)


def test_bfloat16_on_a_cpu_keeps_the_default_layout() -> None:
    requested = RuntimeOptions(precision="bfloat16")
    assert resolve_auto(requested, CPU).channels_last is False
    assert resolve_auto(requested, CUDA).channels_last is True


def test_explicit_options_are_kept() -> None:
    assert resolve_auto(PLAIN, CPU) == PLAIN
    explicit = RuntimeOptions(precision="bfloat16", compile=True, channels_last=True)
    assert resolve_auto(explicit, CPU) == explicit


def test_channels_last_computes_the_same() -> None:
    plain, other = tiny.model(), apply_runtime_options(tiny.model(), PLAIN.model_copy(update={"channels_last": True}))
    assert other.network.out[-1].weight.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(logits_of(other), logits_of(plain), rtol=1e-4, atol=1e-5)


def test_bfloat16_affects_only_the_network() -> None:
    plain, other = tiny.model(), apply_runtime_options(tiny.model(), PLAIN.model_copy(update={"precision": "bfloat16"}))
    assert logits_of(other).dtype == torch.bfloat16
    error = (logits_of(other).float() - logits_of(plain)).norm() / logits_of(plain).norm()
    assert 1e-3 < error < 0.03  # measured, emulated by PyTorch: 0.0144, and 0.0159 to 0.0172 for other weights
    assert {parameter.dtype for parameter in other.parameters()} == {torch.float32}
    (chunk,) = other.iter_samples(tiny.images(1), 1, SamplingConfig(steps=3))
    assert chunk.probabilities.dtype == torch.float32
    labels = torch.zeros(1, tiny.SIDE, tiny.SIDE, dtype=torch.uint8)
    assert other.loss(tiny.images(1), labels, torch.tensor([1])).dtype == torch.float32


@pytest.mark.slow
def test_compiled_network_computes_the_same() -> None:
    plain, other = tiny.model(), apply_runtime_options(tiny.model(), PLAIN.model_copy(update={"compile": True}))
    torch.testing.assert_close(logits_of(other), logits_of(plain), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("tile", [None, (8, 8)])
def test_a_compiled_network_sees_batches_of_one_size_and_samples_the_same(tile: tuple[int, int] | None) -> None:
    plain, other = tiny.model(), tiny.model()
    images, sizes = torch.randn(3, 1, 16, 16), set()
    other.network.register_forward_pre_hook(lambda network, inputs: sizes.add(len(inputs[0])))
    other.fill_chunks = True
    samples = [
        model.sample(images, 3, SamplingConfig(steps=2), max_batch_size=4, tile=tile) for model in (plain, other)
    ]
    assert sizes == {4}
    assert torch.equal(samples[0].labels, samples[1].labels)
    torch.testing.assert_close(samples[0].probabilities, samples[1].probabilities)


def test_loss_and_reverse_step_compile_without_graph_breaks() -> None:
    """Traced without code generation, which would take long."""
    model, images, keys = tiny.model(), tiny.images(3), torch.arange(3)
    labels = torch.randint(2, (3, tiny.SIDE, tiny.SIDE), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    t = torch.tensor([1, 7, 50])

    def reverse_step() -> torch.Tensor:
        p = model(labels, t, images).softmax(1)
        return draw(model.process.p_posterior(p, labels, t, t - 1), keys)

    for step in (lambda: model.loss(images, labels, keys), reverse_step):
        traced = torch.compile(step, fullgraph=True, backend="eager")
        assert torch.equal(traced(), step())


def test_loss_and_samples_never_wait_for_the_device() -> None:
    """On the meta device, reading a value is an error."""
    model, meta = tiny.model().to("meta"), torch.device("meta")
    images = torch.empty(2, 1, tiny.SIDE, tiny.SIDE, device=meta)
    labels = torch.empty(2, tiny.SIDE, tiny.SIDE, dtype=torch.uint8, device=meta)
    keys = torch.empty(2, dtype=torch.int64, device=meta)
    model.loss(images, labels, keys).sum().backward()
    assert model.sample(images, 3, SamplingConfig(steps=2), max_batch_size=4).labels.shape == (
        2,
        3,
        tiny.SIDE,
        tiny.SIDE,
    )
