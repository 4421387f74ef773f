"""Files in the layouts of the official repository: read completely, their models inferred from their tensors."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import ddpm_eval
import ddpm_train
from checkpoints.files import load_checkpoint
from checkpoints.model import build_model, model_config
from checkpoints.official import infer_unet_config, load_model_file, main
from checkpoints.torch_files import Ignored
from diffusion import SamplingConfig, UniformConfig, alpha_bar_table
from models import EncoderConfig, FeatureCondition, UNet, UNetConfig
from tests import tiny
from tests.checkpoints.official_files import (
    SMALL,
    SMALL_DINO,
    State,
    cityscapes_branch,
    encoder_state,
    main_branch,
    training_state,
    unet_state,
    wrapped,
)
from tests.checkpoints.test_files import TouchesAFile
from tests.datasets import trees
from tests.models import dinos
from utils.errors import UserError

TWO_STEPS = SamplingConfig(steps=2)
CITYSCAPES = {"num_classes": 20, "image_channels": 3, "base_channels": 64, "channel_mult": (1, 1, 2, 2, 4, 4)}


Load = Callable[[Any], dict[str, Any]]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """Write something to a file and load it."""

    def write_and_load(contents: Any) -> dict[str, Any]:
        torch.save(contents, tmp_path / "that.pt")
        return load_model_file(tmp_path / "that.pt")

    return write_and_load


def cityscapes(channels: int, output_stride: int, target_layer: int) -> UNetConfig:
    feature = FeatureCondition(channels=channels, output_stride=output_stride, target_layer=target_layer)
    return UNetConfig(**CITYSCAPES, feature=feature)


@pytest.mark.parametrize(
    "config",
    [
        UNetConfig(num_classes=2),
        UNetConfig(num_classes=2, channel_mult=(1, 1, 2, 3, 4)),
        UNetConfig(**CITYSCAPES),
        cityscapes(384, 8, 10),
        cityscapes(768, 8, 11),
        cityscapes(384, 16, 13),
        UNetConfig(
            num_classes=5, image_channels=4, channel_mult=(2, 1, 3), attention_resolutions=(1, 4), num_res_blocks=3
        ),
    ],
    ids=["LIDC", "official default", "Cityscapes", "DINO at 10", "ViT-B at 11", "DINO at stride 16", "odd"],
)
def test_config_is_inferred_from_the_tensors(config: UNetConfig) -> None:
    with torch.device("meta"):
        weights = UNet(config).state_dict()
    attention = tuple(factor for factor in sorted(config.attention_resolutions) if factor <= config.stride)
    assert infer_unet_config(weights) == config.model_copy(update={"attention_resolutions": attention})


def parts(contents: dict[str, object]) -> tuple[UNetConfig, UniformConfig, EncoderConfig | None]:
    """The configs of the model in a checkpoint."""
    config = model_config(contents)
    process = {name: value for name, value in config.process.params.items() if name != "num_classes"}
    assert (config.network.module, config.process.module) == ("models.unet", "diffusion.uniform")
    return UNetConfig(**config.network.params), UniformConfig(**process), config.encoder


@pytest.mark.parametrize("prefix", ["", "module.", "unet.", "module.unet."])
def test_file_of_the_main_branch_is_read(load: Load, prefix: str) -> None:
    file = {"model": wrapped(prefix, unet_state(SMALL)), "average_model": wrapped(prefix, unet_state(SMALL, -1))}
    contents = load({**file, **training_state()})
    assert parts(contents) == (SMALL, UniformConfig(), None)
    assert tiny.same(contents["model"], wrapped("network.", unet_state(SMALL)))
    assert tiny.same(contents["average"], wrapped("network.", unet_state(SMALL, -1)))
    assert contents["settings"]["dataset_file"] == "datasets.lidc"
    assert contents["step"] == 0


@pytest.mark.parametrize("only", ["model", "average_model", "bare"])
def test_one_set_of_weights_is_used_for_both(load: Load, only: str) -> None:
    state = unet_state(SMALL)
    contents = load(state if only == "bare" else {only: state})
    assert tiny.same(contents["model"], contents["average"])
    assert tiny.same(contents["average"], wrapped("network.", state))


def test_frozen_encoder_of_the_cityscapes_branch_is_used(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    contents = load(cityscapes_branch(SMALL_DINO))
    assert parts(contents) == (SMALL_DINO, UniformConfig(), EncoderConfig())
    assert contents["settings"]["dataset_file"] == "datasets.cityscapes"
    monkeypatch.setattr("checkpoints.encoder_weights._from_hub", None)
    model, images = build_model(contents), dinos.images(1)
    features = model.features(images)
    assert features is not None
    assert torch.equal(features, dinos.frozen()(images))
    assert model.sample(images, 2, TWO_STEPS).probabilities.shape == (1, 20, *dinos.SIDES)


def test_file_without_its_encoder_needs_other_weights(load: Load, dino_file: Path) -> None:
    contents = load(main_branch(SMALL_DINO))
    assert model_config(contents).encoder == EncoderConfig()
    model = build_model(contents, str(dino_file))
    assert model.sample(dinos.images(1), 1, TWO_STEPS).labels.shape == (1, 1, *dinos.SIDES)


@pytest.mark.parametrize("name", ["feature_cond_encoder", "cond_encoder"])
def test_trained_encoder_becomes_part_of_the_model(load: Load, name: str) -> None:
    average = {"norm.bias": torch.full((384,), 3.0)}
    file = {name: encoder_state(), f"average_{name}": encoder_state(**average)}
    contents = load({**main_branch(SMALL_DINO), **file})
    assert model_config(contents).encoder == EncoderConfig(train=True)
    tensors = build_model(contents).state_dict()
    assert torch.equal(tensors["encoder.vit.norm.bias"], average["norm.bias"])
    assert torch.equal(contents["model"]["encoder.vit.norm.bias"], dinos.weights()["norm.bias"])


def test_empty_encoder_of_the_cityscapes_branch_is_not_used(load: Load) -> None:
    contents = load({**main_branch(SMALL), "cond_encoder": {}, "average_cond_encoder": {}})
    assert model_config(contents).encoder is None


@pytest.mark.parametrize(
    "process",
    [
        UniformConfig(time_steps=100),
        UniformConfig(time_steps=60, beta_schedule="linear", beta_schedule_params={"first": 0.02, "last": 0.3}),
    ],
)
def test_process_is_inferred_from_its_tables(load: Load, process: UniformConfig) -> None:
    table = alpha_bar_table(process.beta_schedule, process.time_steps, **process.beta_schedule_params)
    buffers = {"cumalphas": table[1:].float(), "betas": (1 - table[1:] / table[:-1]).float()}
    buffers["alphas"] = 1 - buffers["betas"]
    contents = load({"model": {**wrapped("unet.", unet_state(SMALL)), **wrapped("diffusion.", buffers)}})
    _, found, _ = parts(contents)
    assert (found.time_steps, found.beta_schedule) == (process.time_steps, process.beta_schedule)
    assert found.beta_schedule_params == pytest.approx(process.beta_schedule_params, abs=1e-6)
    buffers["cumalphas"] = buffers["cumalphas"].sqrt()
    with pytest.raises(UserError, match="neither the cosine nor a linear schedule"):
        load({"model": {**wrapped("unet.", unet_state(SMALL)), **wrapped("diffusion.", buffers)}})


def test_file_is_described(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save(cityscapes_branch(SMALL_DINO), tmp_path / "that.pt")
    main([str(tmp_path / "that.pt")])
    printed = capsys.readouterr().out
    for words in (
        "ignored entries: optimizer, scheduler, engine",
        "channel_mult: [1, 1, 1, 2]",
        "num_classes: 20",
        "target_layer: 7",
        "time_steps: 250",
        "model: dino_vits8",
    ):
        assert words in printed


def test_official_file_is_evaluated_on_cityscapes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save(cityscapes_branch(SMALL_DINO), tmp_path / "that.pt")
    ids = np.full((32, 48), 7)
    root = trees.write_cityscapes(tmp_path / "cityscapes", "val", {"aachen_000000_000019": ids})
    changes = [f"dataset_params={{path: '{root}', size: [16, 24]}}", "dataset_split=val", "num_samples=[1, 2]"]
    changes += ["sampling.sampler=ancestral"]  # correlated noise of an untrained network would be one class
    ddpm_eval.main(tiny.eval_argv(tmp_path / "that.pt", tmp_path / "results", *changes))
    table = {line.split()[0]: line.split()[1:] for line in capsys.readouterr().out.splitlines() if line.strip()}
    assert 0 < float(table["road"][1]) < 50  # untrained weights
    assert json.loads((tmp_path / "results" / "results.json").read_text())["dataset_file"] == "datasets.cityscapes"


def test_fine_tuning_starts_with_the_weights_and_the_network(data_folder: Path, tmp_path: Path) -> None:
    torch.save(main_branch(SMALL), tmp_path / "that.pt")
    changes = [f"init_from={tmp_path}/that.pt", "optim.learning_rate=1e-9", "optim.lr_params.min_lr=0"]
    ddpm_train.main(tiny.train_argv(data_folder, tmp_path / "run", *changes))
    tuned = load_checkpoint(tmp_path / "run" / "last.pt")
    assert parts(tuned) == (SMALL, UniformConfig(time_steps=tiny.TIME_STEPS), None)
    assert tuned["step"] == 9
    for name, average in wrapped("network.", unet_state(SMALL, -1)).items():
        torch.testing.assert_close(tuned["model"][name], average, rtol=0, atol=1e-6)
        torch.testing.assert_close(tuned["average"][name], average, rtol=0, atol=1e-5)


WIDE = FeatureCondition(channels=512, output_stride=8, target_layer=7)


def broken(change: Callable[[State], None]) -> dict[str, Any]:
    state = unet_state(SMALL)
    change(state)
    return {"model": unet_state(SMALL), "average_model": state}


def widen(state: State) -> None:
    state["output_blocks.0.0.in_layers.2.weight"] = torch.zeros(64, 96, 3, 3)


def joined_twice() -> dict[str, Any]:
    return {"model": {**unet_state(SMALL_DINO), "input_blocks.3.0.in_layers.0.weight": torch.zeros(96)}}


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "unknown tensor": (
        lambda: broken(lambda state: state.update({"out_ce.2.bias": torch.zeros(1)})),
        r"`average_model` belongs to another network: it has an unexpected tensor out_ce\.2\.bias",
    ),
    "missing tensor": (
        lambda: broken(lambda state: state.pop("middle_block.1.norm.bias")),
        r"lacks the tensor middle_block\.1\.norm\.bias",
    ),
    "other shape": (
        lambda: broken(widen),
        r"output_blocks\.0\.0\.in_layers\.2\.weight has shape \(64, 96, 3, 3\) there, \(64, 128, 3, 3\) here",
    ),
    "no last layer": (lambda: broken(lambda state: state.pop("out.2.weight")), r"'out\.2\.weight' is missing"),
    "next to the network": (
        lambda: {"model": {**wrapped("unet.", unet_state(SMALL)), "head.bias": torch.zeros(1)}},
        r"the tensor head\.bias is unexpected",
    ),
    "another network": (lambda: {"model": {"fc.weight": torch.zeros(2, 2)}}, r"no tensor time_embed\.0\.weight"),
    "no tensors": (lambda: {"model": {}, "epoch": 3}, "no tensors under `model` or `average_model`"),
    "numbered tensors": (lambda: {"model": {0: torch.zeros(3)}}, "no tensors under `model` or `average_model`"),
    "a tensor": (lambda: torch.zeros(3), "no tensors under `model` or `average_model`"),
    "features of no DINO": (
        lambda: main_branch(SMALL_DINO.model_copy(update={"feature": WIDE})),
        "no DINO model has features of 512 channels from patches of 8 pixels",
    ),
    "features twice": (joined_twice, "join at the input blocks 3 and 7"),
    "encoder of another kind": (
        lambda: {**main_branch(SMALL_DINO), "cond_encoder": {"model.conv1.weight": torch.zeros(3)}},
        "`cond_encoder` contains no vision transformer",
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_file_that_cannot_be_used_is_refused(load: Load, kind: str) -> None:
    contents, message = REFUSED[kind]
    with pytest.raises(
        UserError, match=rf"that\.pt is neither a checkpoint of this software nor an official one: .*{message}"
    ):
        load(contents())


def test_code_in_a_file_is_not_executed(load: Load, tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    with pytest.raises(UserError, match=r"cannot be read safely: it refers to \S*mkdir"):
        load({**main_branch(SMALL), "engine": TouchesAFile(trap)})
    assert not trap.exists()


@pytest.mark.parametrize("array", [np.array(["text"]), np.array([(1, 2.0)], dtype="i4,f4"), np.zeros(3), np.float64(2)])
def test_arrays_of_numpy_are_not_created(load: Load, monkeypatch: pytest.MonkeyPatch, array: Any) -> None:
    found = []
    monkeypatch.setattr(Ignored, "__init__", lambda self, *parts: found.append(parts))
    assert load({**main_branch(SMALL), "scheduler": {"array": array}})["step"] == 0
    assert found
