"""Volumes are predicted slice by slice, and results lie on the grid of the file."""

import json
from pathlib import Path

import highdicom
import nibabel
import numpy as np
import pydicom
import pytest
import torch

import ddpm_predict
from checkpoints.preprocessing import Preprocessing
from datasets.volumes import read_volume
from diffusion import SamplingConfig
from prediction.trained import Trained
from prediction.volumes import sample_volume, slice_image
from tests import tiny
from tests.datasets.test_volumes import AFFINE, SHAPE, write_nifti, write_series
from utils.noise import image_keys

STEPS = SamplingConfig(steps=3)


def predict(path: Path, tmp_path: Path, *options: str) -> Path:
    checkpoint = tiny.save_model(tmp_path / "model.pt")
    arguments = ["--steps", "3", "--num-samples", "2", "--window", "-1000", "400", "--out", str(tmp_path / "out")]
    ddpm_predict.main([str(checkpoint), str(path), *arguments, *options])
    return tmp_path / "out"


@pytest.mark.parametrize("codes", ["LPS", "SAR"])
@pytest.mark.parametrize("plane", ["axial", "sagittal"])
def test_results_have_the_grid_and_header_of_the_file(codes: str, plane: str, tmp_path: Path) -> None:
    stored = write_nifti(tmp_path / "ct.nii.gz", codes)
    out = predict(tmp_path / "ct.nii.gz", tmp_path, "--plane", plane)
    source = nibabel.load(tmp_path / "ct.nii.gz")
    for name in ("majority", "entropy", "probability_1", "samples"):
        result = nibabel.load(out / "ct" / f"{name}.nii.gz")
        assert result.shape == (*stored.shape, 2)[: result.ndim]
        assert np.array_equal(result.affine, source.affine)
        for field in ("qform_code", "sform_code", "srow_x", "quatern_b", "qoffset_x", "xyzt_units"):
            assert np.array_equal(result.header[field], source.header[field])
        assert result.header.get_zooms()[:3] == source.header.get_zooms()
    areas = json.loads((out / "ct" / "areas.json").read_text())
    samples = np.asarray(nibabel.load(out / "ct" / "samples.nii.gz").dataobj)
    assert areas["classes"][0]["pixels_of_each_sample"] == (samples == 1).sum((0, 1, 2)).tolist()
    assert areas["voxel_mm3"] == pytest.approx(0.7 * 0.8 * 2.5)
    assert (out / "summary.csv").read_text().count("\n") == 2


def test_every_slice_is_sampled_like_an_image_with_the_noise_of_the_volume(tmp_path: Path) -> None:
    write_nifti(tmp_path / "ct.nii")
    trained = Trained(tiny.model(), Preprocessing(image_mean=[0.5], image_std=[0.5]))
    volume, progress = read_volume([tmp_path / "ct.nii"]), list[float]()
    samples = sample_volume(trained, volume, 2, STEPS, 0, tile=(8, 8), progress=progress.append)
    assert samples.labels.shape == (SHAPE[2], 2, SHAPE[1], SHAPE[0])
    assert sum(progress) == pytest.approx(SHAPE[2] * 2)
    key = image_keys(torch.from_numpy(volume.slices)[None])
    alone = trained.model.sample(slice_image(volume, 3, trained), 2, STEPS, keys=key)
    assert torch.equal(samples.labels[3, None], alone.labels)
    torch.testing.assert_close(samples.probabilities[3, None], alone.probabilities)


def test_series_of_dicom_is_one_volume_if_asked_for(tmp_path: Path) -> None:
    (tmp_path / "chest").mkdir()
    write_series(tmp_path / "chest")
    out = predict(tmp_path / "chest", tmp_path, "--volumes", "--seed", "1")
    result = nibabel.load(out / "chest" / "majority.nii.gz")
    assert sorted(result.shape) == sorted(SHAPE)
    centre = result.affine @ [*(np.array(result.shape) - 1) / 2, 1]
    np.testing.assert_allclose(centre, AFFINE @ [*(np.array(SHAPE) - 1) / 2, 1], atol=1e-3)
    segmentation = highdicom.seg.segread(out / "chest" / "majority.dcm")
    assert [segmentation.get_segment_description(1).segment_label] == ["1"]
    segments = segmentation.get_volume(combine_segments=True)
    in_ras = np.diag([-1, -1, 1, 1]) @ segments.affine
    for voxel in np.argwhere(np.asarray(result.dataobj) == 1)[::5]:
        position = np.linalg.inv(in_ras) @ result.affine @ [*voxel, 1]
        assert segments.array[tuple(position.round().astype(int)[:3])] == 1
    assert segments.array.sum() == np.asarray(result.dataobj).sum() > 0
    out = predict(tmp_path / "chest", tmp_path)
    assert (out / "03" / "majority.png").is_file()


def test_series_without_the_data_of_the_patient_has_a_segmentation(tmp_path: Path) -> None:
    for file in write_series(tmp_path):
        dataset = pydicom.dcmread(file)
        for name in ("PatientBirthDate", "PatientSex", "StudyID", "StudyDate", "StudyTime", "AccessionNumber"):
            delattr(dataset, name)
        dataset.save_as(file)
    out = predict(tmp_path, tmp_path, "--volumes") / tmp_path.name
    assert highdicom.seg.segread(out / "majority.dcm").AccessionNumber == ""
    assert (out / "areas.json").is_file()


def test_series_of_which_no_segmentation_can_be_made_has_the_other_results(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for file in write_series(tmp_path):
        dataset = pydicom.dcmread(file)
        del dataset.StudyInstanceUID
        dataset.save_as(file)
    out = predict(tmp_path, tmp_path, "--volumes") / tmp_path.name
    assert "no majority.dcm, since highdicom does not accept the source" in caplog.text
    assert not (out / "majority.dcm").exists()
    assert (out / "majority.nii.gz").is_file()
    assert (out / "areas.json").is_file()


@pytest.mark.parametrize("plane", ["axial", "coronal"])
def test_series_of_one_slice_is_a_volume(plane: str, tmp_path: Path) -> None:
    (tmp_path / "scout").mkdir()
    for other in write_series(tmp_path / "scout")[1:]:
        other.unlink()
    out = predict(tmp_path / "scout", tmp_path, "--volumes", "--plane", plane)
    (path,) = out.glob("*/majority.nii.gz")
    assert sorted(nibabel.load(path).shape) == sorted((*SHAPE[:2], 1))


def test_bad_volume_is_skipped(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_nifti(tmp_path / "good.nii")
    (tmp_path / "bad.nii").write_bytes((tmp_path / "good.nii").read_bytes()[:400])
    with pytest.raises(SystemExit) as stopped:
        predict(tmp_path, tmp_path)
    assert stopped.value.code == 1
    assert "bad.nii cannot be read; it may be damaged" in caplog.text
    assert (tmp_path / "out" / "good" / "majority.nii.gz").is_file()
