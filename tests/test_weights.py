"""The weights that come with the software: found by their short name and by torch.hub, and what their cards say."""

from pathlib import Path

import pytest
import torch
from PIL import Image

import ddpm_eval
import ddpm_predict
from diffusion import SamplingConfig
from tests import tiny
from utils.noise import derive_key, uniform

WEIGHTS = tiny.ROOT / "weights"
NAMES = sorted(path.stem for path in WEIGHTS.glob("*.pt"))


def test_all_weights_are_small_and_have_a_card() -> None:
    assert NAMES == ["lidc_small"]
    for name in NAMES:
        assert (WEIGHTS / f"{name}.pt").stat().st_size < 10e6
        card = (WEIGHTS / f"{name}.md").read_text()
        assert all(section in card for section in ("## Data", "## Training", "## Results", "## Limits"))


@pytest.mark.parametrize("name", NAMES)
def test_torch_hub_loads_a_model_that_samples(name: str) -> None:
    model, preprocessing = torch.hub.load(str(tiny.ROOT), name, source="local", device="cpu")
    assert preprocessing.size == (128, 128)
    images = uniform(derive_key("image", torch.arange(1)), (1, 128, 128)) * 2 - 1
    assert model.sample(images, 2, SamplingConfig(steps=2)).labels.shape == (1, 2, 128, 128)


@pytest.mark.parametrize("name", NAMES)
def test_an_image_is_predicted_by_the_short_name_from_any_folder(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Image.new("L", (128, 128), 90).save("nodule.png")
    ddpm_predict.main([f"weights/{name}", "nodule.png", "--num-samples=2", "--steps=2", "--device=cpu"])
    assert (tmp_path / "predictions" / "nodule" / "panel.png").is_file()


def test_evaluation_of_shipped_weights_is_not_written_among_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    columns = tiny.lesion_columns(2, (128, 128))
    path = tiny.write_hdf5(tmp_path / "data.hdf5", {"test": columns})
    monkeypatch.chdir(tmp_path)
    data = [f"dataset_params.path={path}", "dataset_file=datasets.lidc"]
    argv = tiny.eval_argv(Path("weights/lidc_small"), tmp_path, *data, "sampling.steps=1", "num_samples=1")
    ddpm_eval.main([*argv, "evaluation_path=null", "n_validation_images=0"])
    assert (tmp_path / "logs" / "lidc_small" / "evaluation_test" / "results.json").is_file()
    assert not list(WEIGHTS.glob("*evaluation*"))
