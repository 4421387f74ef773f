"""Models are loaded from checkpoints, those with modules of the user's own only if the user names them."""

from pathlib import Path

import pytest
import torch

from diffusion import SamplingConfig
from prediction import load_model
from tests import tiny
from tests.conftest import UserModule
from utils.errors import UserError

OWN_NETWORK = """
from models.unet import get_network
print("my network is imported")
"""
OWN_PROCESS = """
from diffusion.uniform import get_process
print("my process is imported")
"""


def test_averaged_weights_are_loaded_ready_to_sample(tmp_path: Path) -> None:
    saved = tiny.model()
    average = {name: tensor + 1 for name, tensor in saved.state_dict().items()}
    model, preprocessing = load_model(tiny.save_model(tmp_path / "model.pt", saved, average=average), device="cpu")
    assert all(torch.equal(tensor, average[name]) for name, tensor in model.state_dict().items())
    assert not model.training
    assert preprocessing.size == (tiny.SIDE, tiny.SIDE)
    assert model.sample(tiny.images(2), sampling=SamplingConfig(steps=2)).labels.shape == (2, 1, tiny.SIDE, tiny.SIDE)


def test_official_file_is_loaded_and_the_newest_match_of_a_pattern_is_used(tmp_path: Path) -> None:
    tiny.save_model(tmp_path / "a.pt")
    torch.save(tiny.model().network.state_dict(), tmp_path / "b.pt")
    assert load_model(tmp_path / "[ab].pt", device="cpu").model.process.time_steps == 250
    assert load_model(tmp_path / "a.pt", device="cpu").model.process.time_steps == tiny.TIME_STEPS


@pytest.mark.parametrize("entry", ["preprocessing", "process"])
def test_entry_that_is_not_a_mapping_raises_an_error(tmp_path: Path, entry: str) -> None:
    contents = torch.load(tiny.save_model(tmp_path / "model.pt"), weights_only=True)
    torch.save({name: value for name, value in contents.items() if name != "digest"} | {entry: 7}, tmp_path / "x.pt")
    with pytest.raises(UserError, match=entry):
        load_model(tmp_path / "x.pt")


def test_modules_of_the_users_own_are_imported_only_if_they_are_named(
    tmp_path: Path, user_module: UserModule, capsys: pytest.CaptureFixture[str]
) -> None:
    user_module("my_network", OWN_NETWORK)
    user_module("my_process", OWN_PROCESS)
    path = tiny.save_model(tmp_path / "own.pt", network="my_network", process="my_process")
    for names, message in (
        ({}, "network my_network"),
        ({"network": "models.unet"}, "network my_network"),
        ({"network": "my_network"}, "process my_process"),
    ):
        with pytest.raises(UserError, match=message):
            load_model(path, device="cpu", **names)
        assert "imported" not in capsys.readouterr().out
    load_model(path, device="cpu", network="my_network", process="my_process")
    assert capsys.readouterr().out == "my process is imported\nmy network is imported\n"


def test_bug_in_a_module_of_the_users_own_is_not_called_damage(tmp_path: Path, user_module: UserModule) -> None:
    user_module("my_network", "def get_network(**params): return params.width")
    path = tiny.save_model(tmp_path / "own.pt", network="my_network")
    with pytest.raises(AttributeError, match="width"):
        load_model(path, device="cpu", network="my_network")
