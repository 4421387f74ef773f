"""The weights of an encoder: from files in several layouts and from the hub, or a message that says how to get them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from checkpoints.encoder_weights import build_encoder
from models import DinoEncoder, EncoderConfig, FrozenEncoder
from tests.checkpoints.test_files import TouchesAFile
from tests.models import dinos
from utils.errors import UserError

Layout = Callable[[dict[str, Tensor]], Any]

LAYOUTS: dict[str, Layout] = {
    "plain": lambda weights: weights,
    "with a head": lambda weights: {**weights, "head.weight": torch.zeros(3, 384), "head.bias": torch.zeros(3)},
    "wrapped": lambda weights: {f"module.backbone.{name}": tensor for name, tensor in weights.items()},
    "full": lambda weights: {
        "student": {name: tensor + 1 for name, tensor in weights.items()},
        "teacher": {
            **{f"backbone.{name}": tensor for name, tensor in weights.items()},
            "head.mlp.0.weight": torch.zeros(2, 384),
        },
        "epoch": 100,
    },
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_weights_are_read_from_files_of_several_layouts(tmp_path: Path, layout: str) -> None:
    torch.save(LAYOUTS[layout](dinos.weights()), tmp_path / "dino.pth")
    encoder = build_encoder(EncoderConfig(), str(tmp_path / "dino.pth"))
    assert isinstance(encoder, FrozenEncoder)
    assert encoder.digest == dinos.frozen().digest
    changed = build_encoder(EncoderConfig(), {**dinos.weights(), "norm.bias": torch.ones(384)})
    assert isinstance(changed, FrozenEncoder)
    assert changed.digest != encoder.digest


def test_safetensors_are_read(tmp_path: Path) -> None:
    save_file(dinos.weights(), tmp_path / "model.safetensors")
    encoder = build_encoder(dinos.TRAINED, str(tmp_path / "model.safetensors"))
    assert isinstance(encoder, DinoEncoder)
    assert all(torch.equal(tensor, dinos.weights()[name]) for name, tensor in encoder.vit.state_dict().items())


def test_without_internet_the_file_to_download_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: Any, **__: Any) -> None:
        raise ConnectionError("no route to host")

    with torch.device("meta"):
        built = DinoEncoder(EncoderConfig())
    monkeypatch.setattr("checkpoints.encoder_weights.DinoEncoder", lambda config: built)
    monkeypatch.setattr("timm.create_model", offline)
    with pytest.raises(UserError) as error:
        build_encoder(EncoderConfig())
    for word in ("dino_vits8", "ConnectionError", "dino_deitsmall8_pretrain.pth", "feature_cond_encoder.weights"):
        assert word in str(error.value)


def test_weights_are_downloaded_under_the_name_of_timm(monkeypatch: pytest.MonkeyPatch) -> None:
    import timm

    requested: list[str] = []
    create = timm.create_model

    def hub(name: str, pretrained: bool = False, **settings: Any) -> torch.nn.Module:
        made = create(name, pretrained=False, **settings)
        if pretrained:
            requested.append(name)
            made.load_state_dict(dinos.weights())
        return made

    monkeypatch.setattr("timm.create_model", hub)
    encoder = build_encoder(EncoderConfig())
    assert requested == ["vit_small_patch8_224.dino"]
    assert isinstance(encoder, FrozenEncoder)
    assert encoder.digest == dinos.frozen().digest


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        (lambda: {"weight": torch.ones(2)}, "contains no vision transformer: it has no tensor patch_embed.proj.weight"),
        (lambda: torch.ones(2), "contains no vision transformer"),
        (lambda: dinos.weights("dino_vits16"), r"another network: pos_embed has shape \(1, 197, 384\) there"),
        (
            lambda: {name: tensor for name, tensor in dinos.weights().items() if name != "norm.bias"},
            "lacks the tensor norm.bias",
        ),
        (lambda: {**dinos.weights(), "extra": torch.ones(1)}, "an unexpected tensor extra"),
    ],
)
def test_file_of_something_else_is_refused(tmp_path: Path, contents: Callable[[], Any], message: str) -> None:
    torch.save(contents(), tmp_path / "dino.pth")
    with pytest.raises(UserError, match=message):
        build_encoder(EncoderConfig(), str(tmp_path / "dino.pth"))


@pytest.mark.parametrize("name", ["dino.pth", "model.safetensors"])
def test_missing_and_damaged_files_are_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    with pytest.raises(UserError, match=f"there is no file .*{name}; download dino_deitsmall8_pretrain.pth"):
        build_encoder(EncoderConfig(), str(path))
    path.write_bytes(b"no weights")
    with pytest.raises(UserError, match=f"{name} is not"):
        build_encoder(EncoderConfig(), str(path))


def test_code_in_a_file_is_not_executed(tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    torch.save({**dinos.weights(), "args": TouchesAFile(trap)}, tmp_path / "dino.pth")
    with pytest.raises(UserError, match=r"dino.pth cannot be read safely: it refers to \S*mkdir"):
        build_encoder(EncoderConfig(), str(tmp_path / "dino.pth"))
    assert not trap.exists()
