"""On a CUDA device: recorded steps and samples are those of a plain run."""

import copy
from pathlib import Path

import pytest
import torch

from diffusion import SamplingConfig
from models import CCDM
from models.cuda_graph import WARM_UP, CudaGraph
from models.runtime import RuntimeOptions, apply_runtime_options, resolve_auto
from tests import tiny
from tests.trainings import StartedTraining, start_training

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
CUDA = torch.device("cuda")


@pytest.fixture(autouse=True)
def full_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


def on_cuda(**options: object) -> CCDM:
    requested = RuntimeOptions(**{"precision": "float32", "compile": "cuda_graph", **options})  # type: ignore[arg-type]
    return apply_runtime_options(tiny.model().to(CUDA), resolve_auto(requested, CUDA))


def trained(tmp_path: Path, data_folder: Path, *changes: str, recorded: bool) -> StartedTraining:
    options = ("device=cuda", "precision=float32", "compile=cuda_graph", "train_for=12 steps", *changes)
    training = start_training(tiny.train_argv(data_folder, tmp_path / str(recorded), *options))
    training.state.cuda_graph = CudaGraph(recorded)
    for batch in training.batches:
        training.step(batch)
    return training


@pytest.mark.parametrize(
    "changes", [[], ["loss.raters=all", "time_sampling=importance"], ["optim.max_grad_norm=1", "deterministic=true"]]
)
def test_recorded_steps_are_plain_steps(changes: list[str], tmp_path: Path, data_folder: Path) -> None:
    plain, recorded = (trained(tmp_path, data_folder, *changes, recorded=recorded) for recorded in (False, True))
    assert recorded.state.step == 12 > WARM_UP
    assert recorded.state.cuda_graph._graph is not None
    for expected, found in zip(plain.state.model.parameters(), recorded.state.model.parameters(), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-5)
    for expected, found in zip(
        plain.state.average.model.parameters(), recorded.state.average.model.parameters(), strict=True
    ):
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-5)
    assert (
        recorded.state.state_dict()["optimizer"]["param_groups"]
        == plain.state.state_dict()["optimizer"]["param_groups"]
    )


@pytest.mark.parametrize("tile", [None, (8, 8)])
def test_recorded_samples_are_plain_samples(tile: tuple[int, int] | None) -> None:
    recorded, plain = on_cuda(), on_cuda()
    plain.cuda_graph = CudaGraph()
    images = tiny.images(3, size=(16, 16)).to(CUDA)
    for _ in range(2):
        expected, found = (
            model.sample(images, 3, SamplingConfig(steps=6), max_batch_size=4, tile=tile) for model in (plain, recorded)
        )
        assert torch.equal(found.labels, expected.labels)
        torch.testing.assert_close(found.probabilities, expected.probabilities)
    on_cpu = copy.deepcopy(recorded).cpu().sample(images.cpu(), 3, SamplingConfig(steps=6), tile=tile)
    assert (on_cpu.labels != found.labels.cpu()).float().mean() < 0.001


def test_a_model_that_was_moved_or_changed_uses_its_weights() -> None:
    model, images = on_cuda(), tiny.images(4).to(CUDA)
    first = model.sample(images, 2, SamplingConfig(steps=8)).probabilities
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.5)
    changed = model.sample(images, 2, SamplingConfig(steps=8)).probabilities
    moved = model.cpu().to(CUDA).sample(images, 2, SamplingConfig(steps=8)).probabilities
    assert not torch.allclose(first, changed)
    torch.testing.assert_close(moved, changed)


def test_the_fused_normalisation_computes_the_same() -> None:
    plain, fused = on_cuda(compile=False), on_cuda()
    labels = torch.zeros(4, tiny.SIDE, tiny.SIDE, dtype=torch.uint8, device=CUDA)
    images, t = tiny.images(4).to(CUDA), torch.tensor([1, 10, 20, 30], device=CUDA)
    logits = [model(labels, t, images) for model in (plain, fused)]
    torch.testing.assert_close(logits[1], logits[0], rtol=1e-3, atol=1e-3)
    gradients = [
        torch.autograd.grad(output.square().sum(), list(model.network.parameters()))
        for output, model in zip(logits, (plain, fused), strict=True)
    ]
    for expected, found in zip(*gradients, strict=True):
        assert (found - expected).norm() <= 1e-2 * expected.norm() + 1e-4
