"""Exported denoisers compute the same logits, and the NumPy sampler draws the same label maps from them."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from diffusion import SamplingConfig
from diffusion.uniform import get_process
from models import CCDM, UNet, UNetConfig, two_stage
from prediction.export import METADATA, export, main
from tests import tiny

SIZE = (16, 12)
TABLE = get_process(3, time_steps=tiny.TIME_STEPS).alpha_bar_cpu.tolist()
ABOUT = {
    "alpha_bar": TABLE, "num_classes": 3, "size": list(SIZE), "image_mean": [0.5], "image_std": [0.5],
    "class_names": None,
}  # fmt: skip


class Pointwise(nn.Module):
    """Sees every pixel alone."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(1, 3, 1)

    def forward(self, x_t: Tensor, t: Tensor, images: Tensor) -> Tensor:
        seen = x_t[:, None] == torch.arange(3)[:, None, None]
        time = (t / 50).to(images.dtype)[:, None, None, None]
        logits: Tensor = self.layer(images) + (2 - time) * seen
        return logits


def unet(**changes: object) -> UNet:
    """A network whose layers are not zero, with patches and attention."""
    torch.manual_seed(0)
    config = UNetConfig(
        num_classes=3, channel_mult=(1, 1), attention_resolutions=(2,), num_res_blocks=1, patch_size=2,
        scale_shift_norm=True,
    )  # fmt: skip
    network = UNet(config.model_copy(update=changes))
    for parameter in network.parameters():
        if not parameter.any() and parameter.dim() > 1:
            nn.init.normal_(parameter, std=0.1)
    return network


def ccdm(network: nn.Module) -> CCDM:
    return CCDM(network, get_process(3, time_steps=tiny.TIME_STEPS)).eval()


def batch(number: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(number)
    x_t = torch.randint(3, (number, *SIZE), generator=generator, dtype=torch.uint8)
    return x_t, torch.arange(1, number + 1) * 9, torch.randn(number, 1, *SIZE, generator=generator)


@torch.no_grad()
def test_program_of_pytorch_takes_any_batch_and_knows_the_process(tmp_path: Path) -> None:
    model, path = ccdm(unet()), tmp_path / "model.pt2"
    export(model, SIZE, 1, path, ABOUT)
    about = {METADATA: ""}
    program = torch.export.load(path, extra_files=about).module()
    for number in (1, 3):
        assert torch.allclose(program(*batch(number)), model(*batch(number)), atol=1e-5)
    assert json.loads(about[METADATA]) == ABOUT


@torch.no_grad()
@pytest.mark.parametrize(("kind", "differing"), [("pointwise", 0.0), ("unet", 0.001)])
def test_onnx_agrees_and_numpy_draws_the_same_label_maps(tmp_path: Path, kind: str, differing: float) -> None:
    for package in ("onnx", "onnxscript"):
        pytest.importorskip(package, reason=f"{package} is not installed")
    runtime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    from prediction import numpy_sampler  # imports onnxruntime

    model, path = ccdm(Pointwise() if kind == "pointwise" else unet()), tmp_path / "model.onnx"
    export(model, SIZE, 1, path, ABOUT)
    session = runtime.InferenceSession(path)
    for number in (1, 3):
        named = dict(zip(("x_t", "t", "images"), (each.numpy() for each in batch(number)), strict=True))
        assert np.allclose(session.run(None, named)[0], model(*batch(number)), atol=1e-4)

    image = np.random.default_rng(0).random(SIZE, dtype=np.float32)
    normalised = (torch.from_numpy(image)[None, None] - 0.5) / 0.5
    for steps in (1, 3, 7):
        drawn = numpy_sampler.sample(str(path), image, num_samples=8, steps=steps, seed=5)
        expected = model.sample(normalised, 8, SamplingConfig(steps=steps), seed=5).labels[0].numpy()
        assert (drawn.shape, drawn.dtype) == ((8, *SIZE), np.uint8)
        assert len(np.unique(expected)) == 3
        assert (drawn != expected).mean() <= differing
    with pytest.raises(ValueError, match="shape"):
        numpy_sampler.sample(str(path), image.T)
    for steps in (0, len(TABLE)):
        with pytest.raises(ValueError, match="steps"):
            numpy_sampler.sample(str(path), image, steps=steps)


def test_sampler_in_numpy_visits_the_same_times() -> None:
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    from diffusion.samplers import time_grid
    from prediction import numpy_sampler

    for steps in (1, 2, 7, 25, 50):
        assert numpy_sampler.time_grid(np.array(TABLE), steps) == time_grid(TABLE, steps)


def test_checkpoint_is_exported_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint = tiny.save_model(tmp_path / "model.pt")
    main([str(checkpoint), str(tmp_path / "out" / "model.pt2"), "--size", "16", "8"])
    assert "images of 16 x 8" in capsys.readouterr().out
    assert (tmp_path / "out" / "model.pt2").is_file()


def test_network_in_two_stages_is_exported_for_any_batch(tmp_path: Path) -> None:
    stage = {"channel_mult": [1], "num_res_blocks": 1, "attention_resolutions": []}
    network = two_stage.get_network(3, 1, feature_channels=4, encoder=stage, denoiser=stage)
    model, path = CCDM(network, get_process(3, time_steps=tiny.TIME_STEPS)).eval(), tmp_path / "model.pt2"
    export(model, SIZE, 1, path, ABOUT)
    program = torch.export.load(path).module()
    for number in (1, 3):
        assert torch.allclose(program(*batch(number)), model(*batch(number)), atol=1e-5)


def test_what_cannot_be_exported_is_refused(tmp_path: Path) -> None:
    checkpoint = tiny.save_model(tmp_path / "model.pt")
    assert "expected .onnx or .pt2" in tiny.refusal(main, [str(checkpoint), str(tmp_path / "model.pth")])
    from diffusion.classifier import get_process as classifier

    model = CCDM(tiny.model().network, classifier(2))
    path = tiny.save_model(tmp_path / "classifier.pt", model, process="diffusion.classifier")
    said = tiny.refusal(main, [str(path), str(tmp_path / "model.pt2")])
    assert said == "PixelwiseClassifier cannot be exported; only diffusion.uniform can"
    options = [str(checkpoint), str(tmp_path / "model.pt2"), "--size", "0", "8"]
    assert tiny.refusal(main, options) == "--size is 0 8; expected at least one pixel"
    assert not (tmp_path / "model.pt2").exists()
