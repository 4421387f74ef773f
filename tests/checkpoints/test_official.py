"""Files in the layouts of the official repository: read whole, and understood from their tensors."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch

import ddpm_eval
import ddpm_train
from checkpoints.files import load_checkpoint, save_checkpoint
from checkpoints.infer import network_of
from checkpoints.model import config_from_checkpoint, restore
from checkpoints.official import load_model_file, main
from diffusion import alpha_bar_table
from models import CCDM, FeatureCondition, ProcessConfig, UNet, UNetConfig
from models.dino import EncoderConfig
from tests import golden_rule, tiny
from tests.checkpoints.official_files import (
    SMALL,
    SMALL_DINO,
    Load,
    cityscapes_branch,
    encoder_state,
    main_branch,
    training_state,
    unet_state,
    wrapped,
)
from tests.datasets import trees
from tests.models import dinos
from utils.errors import UserError

LIDC = UNetConfig(2, 1, 32, (1, 1, 2, 3, 4))
CITYSCAPES = UNetConfig(20, 3, 64, (1, 1, 2, 2, 4, 4))


@pytest.mark.parametrize(
    "shape",
    [
        UNetConfig(2),
        LIDC,
        CITYSCAPES,
        dataclasses.replace(CITYSCAPES, feature=FeatureCondition(384, 8, 10)),
        dataclasses.replace(CITYSCAPES, feature=FeatureCondition(768, 8, 11)),
        dataclasses.replace(CITYSCAPES, feature=FeatureCondition(384, 16, 13)),
        UNetConfig(5, 4, 32, (2, 1, 3), (1, 4), 3),
    ],
    ids=["LIDC", "official default", "Cityscapes", "DINO at 10", "ViT-B at 11", "DINO at stride 16", "odd"],
)
def test_shape_is_read_off_the_tensors(shape: UNetConfig) -> None:
    with torch.device("meta"):
        weights = UNet(shape).state_dict()
    found = network_of(weights)
    attention = tuple(factor for factor in sorted(shape.attention_resolutions) if factor <= shape.stride)
    assert found == dataclasses.replace(shape, attention_resolutions=attention)


@pytest.mark.parametrize("prefix", ["", "module.", "unet.", "module.unet."])
def test_file_of_the_main_branch_is_read(load: Load, prefix: str) -> None:
    file = {"model": wrapped(prefix, unet_state(SMALL)), "average_model": wrapped(prefix, unet_state(SMALL, -1))}
    contents = load({**file, **training_state()})
    assert config_from_checkpoint(contents) == (SMALL, ProcessConfig(), None)
    assert tiny.same(contents["model"], wrapped("unet.", unet_state(SMALL)))
    assert tiny.same(contents["average"], wrapped("unet.", unet_state(SMALL, -1)))
    assert contents["settings"]["dataset_file"] == "datasets.lidc"
    assert contents["step"] == 0


def test_restored_model_is_the_average(load: Load) -> None:
    model = restore(load(main_branch(SMALL)))
    x_t, t, images = torch.zeros(1, 8, 8, dtype=torch.long), torch.tensor([7]), tiny.images(1)
    network = UNet(SMALL).requires_grad_(False)
    network.load_state_dict(unet_state(SMALL, -1))
    assert torch.equal(model(x_t, t, images), network(x_t, t, images))
    assert model.sample(images, 3, steps=4).labels.shape == (1, 3, 8, 8)


@pytest.mark.parametrize("only", ["model", "average_model", "bare"])
def test_one_set_of_weights_stands_for_both(load: Load, only: str) -> None:
    state = unet_state(SMALL)
    contents = load(state if only == "bare" else {only: state})
    assert tiny.same(contents["model"], contents["average"])
    assert tiny.same(contents["average"], wrapped("unet.", state))


def test_frozen_encoder_of_the_cityscapes_branch_comes_along(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    contents = load(cityscapes_branch(SMALL_DINO))
    assert config_from_checkpoint(contents) == (SMALL_DINO, ProcessConfig(), EncoderConfig("dino_vits8", 11, 8, False))
    assert contents["settings"]["dataset_file"] == "datasets.cityscapes"
    monkeypatch.setattr("checkpoints.encoder_weights._from_hub", None)
    model, images = restore(contents), dinos.images(1)
    features = model.features(images)
    assert features is not None
    assert torch.equal(features, dinos.frozen()(images))
    drawn = model.sample(images, 2, steps=2)
    assert drawn.labels.shape == (1, 2, *dinos.SIDES)
    assert drawn.probabilities.shape == (1, 20, *dinos.SIDES)


def test_file_without_its_encoder_takes_the_weights_elsewhere(load: Load, tmp_path: Path) -> None:
    contents = load(main_branch(SMALL_DINO))
    assert config_from_checkpoint(contents).encoder == EncoderConfig("dino_vits8", 11, 8, False)
    torch.save(dinos.weights(), tmp_path / "dino.pth")
    model = restore(contents, str(tmp_path / "dino.pth"))
    assert model.sample(dinos.images(1), steps=1).labels.shape == (1, 1, *dinos.SIDES)


@pytest.mark.parametrize("name", ["feature_cond_encoder", "cond_encoder"])
def test_encoder_that_was_trained_is_the_models(load: Load, name: str) -> None:
    average = {"norm.bias": torch.full((384,), 3.0)}
    file = {name: encoder_state(), f"average_{name}": encoder_state(**average)}
    contents = load({**main_branch(SMALL_DINO), **file})
    assert config_from_checkpoint(contents).encoder == EncoderConfig("dino_vits8", 11, 8, True)
    tensors = restore(contents).state_dict()
    assert torch.equal(tensors["encoder.vit.norm.bias"], average["norm.bias"])
    assert torch.equal(contents["model"]["encoder.vit.norm.bias"], dinos.weights()["norm.bias"])


def test_empty_encoder_of_the_cityscapes_branch_is_not_used(load: Load) -> None:
    contents = load({**main_branch(SMALL), "cond_encoder": {}, "average_cond_encoder": {}})
    assert config_from_checkpoint(contents).encoder is None


@pytest.mark.parametrize(
    "process", [ProcessConfig(100), ProcessConfig(250), ProcessConfig(60, "linear", {"first": 0.02, "last": 0.3})]
)
def test_process_is_read_where_the_file_holds_its_tables(load: Load, process: ProcessConfig) -> None:
    table = alpha_bar_table(process.beta_schedule, process.time_steps, **process.beta_schedule_params)
    buffers = {"cumalphas": table[1:].float(), "betas": (1 - table[1:] / table[:-1]).float()}
    buffers["alphas"] = 1 - buffers["betas"]
    contents = load({"model": {**wrapped("unet.", unet_state(SMALL)), **wrapped("diffusion.", buffers)}})
    found = config_from_checkpoint(contents).process
    assert (found.time_steps, found.beta_schedule) == (process.time_steps, process.beta_schedule)
    assert found.beta_schedule_params == pytest.approx(process.beta_schedule_params, abs=1e-6)
    buffers["cumalphas"] = buffers["cumalphas"].sqrt()
    with pytest.raises(UserError, match="neither the cosine nor a linear schedule"):
        load({"model": {**wrapped("unet.", unet_state(SMALL)), **wrapped("diffusion.", buffers)}})


def test_own_checkpoint_comes_as_it_is(tmp_path: Path) -> None:
    contents = {name: {} for name in ("settings", "network", "process", "model", "average")}
    save_checkpoint(tmp_path / "last.pt", {**contents, "step": 3})
    assert load_model_file(tmp_path / "last.pt") == load_checkpoint(tmp_path / "last.pt")


def test_file_is_described(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save(cityscapes_branch(SMALL_DINO), tmp_path / "that.pt")
    main([str(tmp_path / "that.pt")])
    told = capsys.readouterr().out
    for words in (
        "not used of it: optimizer, scheduler, engine",
        "channel_mult: [1, 1, 1, 2]",
        "num_classes: 20",
        "target_layer: 7",
        "time_steps: 250",
        "model: dino_vits8",
    ):
        assert words in told


def test_official_file_is_evaluated_on_cityscapes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save(cityscapes_branch(SMALL_DINO), tmp_path / "that.pt")
    ids = np.full((32, 48), 7)
    root = trees.write_cityscapes(tmp_path / "cityscapes", "val", {"aachen_000000_000019": ids})
    changes = [f"dataset_params={{path: '{root}', size: [16, 24]}}", "dataset_split=val", "evaluations=[1, 2]"]
    ddpm_eval.main(tiny.eval_argv(tmp_path / "that.pt", tmp_path / "results", *changes))
    table = {line.split()[0]: line.split()[1:] for line in capsys.readouterr().out.splitlines() if line.strip()}
    assert 0 <= float(table["road"][0]) < 50  # by weights that know nothing
    assert json.loads((tmp_path / "results" / "results.json").read_text())["dataset_file"] == "datasets.cityscapes"


def test_fine_tuning_begins_with_the_weights_and_needs_no_network_typed_in(data_folder: Path, tmp_path: Path) -> None:
    shape = UNetConfig(2, 1, 32, (1, 2), (2,), 1)
    torch.save(main_branch(shape), tmp_path / "that.pt")
    changes = [
        f"load_from={tmp_path}/that.pt",
        "optim.learning_rate=1e-9",
        "optim.lr_params.min_lr=0",
        "polyak_alpha=0.995",
    ]
    ddpm_train.main(tiny.train_argv(data_folder, tmp_path / "run", *changes))
    tuned = load_checkpoint(tmp_path / "run" / "last.pt")
    assert config_from_checkpoint(tuned) == (shape, ProcessConfig(), None)
    assert tuned["step"] == 9
    kept = 0.995**9  # what nine steps leave of the average that the file holds; the weights hardly move
    for name, start in wrapped("unet.", unet_state(shape)).items():
        torch.testing.assert_close(tuned["model"][name], start, rtol=0, atol=1e-6)
        torch.testing.assert_close(tuned["average"][name], (1 - 2 * kept) * start, rtol=0, atol=1e-5)
    again = [f"load_from={tmp_path}/run/last.pt", f"output_path={tmp_path}/again"]
    ddpm_train.main([str(tmp_path / "run" / "params.yml"), *again])
    assert load_checkpoint(tmp_path / "again" / "last.pt")["step"] == 9


@pytest.mark.slow
def test_released_cityscapes_network_loads_and_samples(tmp_path: Path) -> None:
    shape = dataclasses.replace(CITYSCAPES, feature=FeatureCondition(384, 8, 11))
    torch.save(cityscapes_branch(shape), tmp_path / "that.pt")
    model: CCDM = restore(load_model_file(tmp_path / "that.pt"))
    images = golden_rule.real_input((1, 3, 64, 128), 5)
    assert model.sample(images, steps=2).labels.shape == (1, 1, 64, 128)
