"""Image files of all kinds become the input of the network, and others raise errors that say why."""

import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from checkpoints.preprocessing import Preprocessing
from datasets.cityscapes import Cityscapes
from prediction import reading
from prediction.reading import intensities, read_image
from tests.prediction.dicoms import write_dicom
from utils.errors import UserError


def preprocessing(mean: Sequence[float], std: Sequence[float]) -> Preprocessing:
    return Preprocessing(image_mean=list(mean), image_std=list(std))


GREY = preprocessing([0.5], [0.5])
COLOUR = preprocessing(Cityscapes.image_mean, Cityscapes.image_std)
RAMP = np.arange(6 * 5, dtype=np.uint8).reshape(6, 5) * 8


def saved(path: Path, values: Any, **options: Any) -> Path:
    picture: Any = values if isinstance(values, Image.Image) else Image.fromarray(values)
    picture.save(path, **options)
    return path


@pytest.mark.parametrize("suffix", ["png", "tif", "TIFF"])
def test_eight_bits_are_divided_by_255_and_scaled_as_in_training(tmp_path: Path, suffix: str) -> None:
    image = read_image(saved(tmp_path / f"x.{suffix}", RAMP), GREY)
    assert (image.shape, image.dtype) == ((1, 1, 6, 5), torch.float32)
    assert torch.allclose(image[0, 0], torch.from_numpy(RAMP / 127.5 - 1).float(), atol=1e-6)


def test_colours_are_scaled_channel_by_channel(tmp_path: Path) -> None:
    values = np.stack([RAMP, 255 - RAMP, RAMP // 2], axis=-1)
    image = read_image(saved(tmp_path / "x.png", values), COLOUR)
    expected = (values / 255 - np.array(Cityscapes.image_mean)) / np.array(Cityscapes.image_std)
    assert torch.allclose(image[0], torch.from_numpy(expected).movedim(-1, 0).float(), atol=1e-6)


def test_colours_become_grey_by_luminance_and_grey_is_repeated(tmp_path: Path) -> None:
    colours = np.zeros((4, 4, 3), np.uint8)
    colours[..., 1] = 255
    grey = read_image(saved(tmp_path / "green.png", colours), preprocessing([0], [1]))
    assert torch.allclose(grey, torch.full((1, 1, 4, 4), 0.587))
    repeated = read_image(saved(tmp_path / "grey.png", RAMP), preprocessing([0] * 3, [1] * 3))
    assert torch.equal(repeated[0, 0], repeated[0, 2])
    assert repeated.shape == (1, 3, 6, 5)


def test_sixteen_bits_are_stretched_from_the_least_to_the_largest_value(tmp_path: Path) -> None:
    values = (RAMP.astype(np.uint16) + 7) * 100
    for name in ("x.png", "x.tif"):
        read = intensities(saved(tmp_path / name, values))
        assert np.allclose(read[..., 0], RAMP / RAMP.max())


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "1"])
def test_transparency_palette_and_single_bits_are_understood(tmp_path: Path, mode: str) -> None:
    plain = Image.fromarray(np.where(RAMP > 100, 255, 0).astype(np.uint8))
    picture = plain.convert(mode, dither=Image.Dither.NONE)
    if mode in ("RGBA", "LA"):
        picture.putalpha(0)
    read = read_image(saved(tmp_path / "x.png", picture), GREY)
    assert torch.allclose(read[0, 0], torch.from_numpy(np.where(RAMP > 100, 1.0, -1.0)).float(), atol=1e-6)


def test_pictures_are_rotated_as_their_exif_data_say(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate by 90 degrees
    path = saved(tmp_path / "x.jpg", Image.new("RGB", (20, 10)), exif=exif)
    assert intensities(path).shape == (20, 10, 3)


def test_floats_within_0_and_1_are_unchanged_and_others_stretched(tmp_path: Path) -> None:
    for name, values, expected in (
        ("unit", np.array([[0.25, 0.5]]), [[0.25, 0.5]]),
        ("wide", np.array([[-1.0, 0.0, 3.0]]), [[0, 0.25, 1]]),
        ("integers", np.array([[-1000, 0, 1000]]), [[0, 0.5, 1]]),
        ("bits", np.array([[True, False]]), [[1, 0]]),
        ("constant", np.full((1, 2), 9.0), [[0, 0]]),
    ):
        np.save(tmp_path / f"{name}.npy", values)
        assert np.allclose(intensities(tmp_path / f"{name}.npy")[..., 0], expected), name


def test_array_with_the_networks_channels_is_read(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.random.default_rng(0).random((4, 6, 5)))
    assert read_image(tmp_path / "x.npy", preprocessing([0.5] * 5, [0.5] * 5)).shape == (1, 5, 4, 6)


def refusal(path: Path) -> str:
    with pytest.raises(UserError) as error:
        read_image(path, GREY)
    assert str(path) in str(error.value)
    return str(error.value)


def test_files_that_are_not_pictures_raise_errors(tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("this is no picture")
    (tmp_path / "empty.jpg").touch()
    whole = saved(tmp_path / "whole.jpg", np.random.default_rng(0).integers(256, size=(64, 64, 3), dtype=np.uint8))
    (tmp_path / "cut.jpg").write_bytes(whole.read_bytes()[:1500])
    assert "cannot be read as a picture" in refusal(tmp_path / "text.png")
    assert "is empty" in refusal(tmp_path / "empty.jpg")
    assert "truncated" in refusal(tmp_path / "cut.jpg")
    assert "there is no file" in refusal(tmp_path / "nowhere.png")


def test_pictures_with_several_pages_raise_errors(tmp_path: Path) -> None:
    pages = [Image.fromarray(RAMP)] * 3
    path = saved(tmp_path / "x.tif", pages[0], save_all=True, append_images=pages[1:])
    assert "has 3 pages; expected one" in refusal(path)


def test_decompression_bombs_raise_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(tmp_path / "x.png", np.zeros((40, 40), np.uint8))
    np.save(tmp_path / "x.npy", np.zeros((40, 40)))
    monkeypatch.setattr(reading, "MAX_PIXELS", 1000)
    for limit in (1000, 100):  # PIL warns of the one and refuses the other
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        assert "more pixels" in refusal(path)
    assert "more than 1,000 pixels" in refusal(tmp_path / "x.npy")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.zeros((10, 20, 30)), "shape (10, 20, 30); the network expects H x W x 1"),
        (np.zeros(7), "shape (7,); expected H x W or H x W x channels"),
        (np.zeros((0, 4)), "shape (0, 4)"),
        (np.array([[0.0, np.nan]]), "not finite"),
        (np.array([[0.0, np.inf]]), "not finite"),
        (np.array([["a"]]), "expected one array of numbers"),
        (np.array([[1j]]), "expected one array of numbers"),
    ],
)
def test_arrays_that_are_not_images_raise_errors(tmp_path: Path, values: np.ndarray, message: str) -> None:
    np.save(tmp_path / "x.npy", values)
    assert message in refusal(tmp_path / "x.npy")


def test_damaged_and_pickled_arrays_raise_errors(tmp_path: Path) -> None:
    np.save(tmp_path / "whole.npy", np.zeros((40, 40)))
    (tmp_path / "cut.npy").write_bytes((tmp_path / "whole.npy").read_bytes()[:300])
    (tmp_path / "text.npy").write_text("no array")
    np.save(tmp_path / "objects.npy", np.array([[{}]]), allow_pickle=True)
    np.savez(tmp_path / "several.npz", a=np.zeros((4, 4)))
    (tmp_path / "several.npz").rename(tmp_path / "several.npy")
    for name in ("cut", "text", "objects", "several"):
        assert "array" in refusal(tmp_path / f"{name}.npy")


def test_dicom_without_pydicom_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pydicom", None)
    for name in ("x.dcm", "IM0001"):
        (tmp_path / name).write_bytes(bytes(128) + b"DICM")
        assert "pip install pydicom" in refusal(tmp_path / name)


def test_dicom_is_rescaled_and_clipped_to_its_window(tmp_path: Path) -> None:
    pytest.importorskip("pydicom", reason="pydicom is not installed")
    hounsfield = np.array([[-1000, -600, -599], [-200, 200, 400]])
    stored = (hounsfield + 1024).astype(np.uint16)
    path = write_dicom(tmp_path / "ct", stored, RescaleSlope=1, RescaleIntercept=-1024)
    stretched = (hounsfield + 1000) / 1400
    assert np.allclose(intensities(path)[..., 0], stretched)
    path = write_dicom(
        tmp_path / "windowed.dcm", stored, RescaleSlope=1, RescaleIntercept=-1024,
        WindowCenter=[-599.5, 40], WindowWidth=[801, 400],
    )  # fmt: skip
    assert np.allclose(intensities(path)[..., 0], [[0, 0.5, 0.50125], [1, 1, 1]])
    path = write_dicom(tmp_path / "inverted.dcm", stored, PhotometricInterpretation="MONOCHROME1")
    assert np.allclose(intensities(path)[..., 0], 1 - stretched)


def test_dicom_without_exactly_one_complete_image_raises_errors(tmp_path: Path) -> None:
    pytest.importorskip("pydicom", reason="pydicom is not installed")
    stored = np.zeros((8, 8), np.uint16)
    path = write_dicom(tmp_path / "several.dcm", np.stack([stored] * 3), NumberOfFrames=3)
    assert "contains 3 images" in refusal(path)
    (tmp_path / "cut.dcm").write_bytes(write_dicom(tmp_path / "whole.dcm", stored).read_bytes()[:-50])
    assert "damaged" in refusal(tmp_path / "cut.dcm")
    (tmp_path / "text.dcm").write_text("no DICOM")
    assert "damaged" in refusal(tmp_path / "text.dcm")


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (RuntimeError("all plugins are missing dependencies:\n\tgdcm - requires gdcm"), "pip install pylibjpeg"),
        (NotImplementedError("'Transfer Syntax UID' is not supported"), "pydicom does not support"),
        (RuntimeError("exceptions were raised by all available plugins"), "may be damaged"),
    ],
)
def test_compression_that_cannot_be_read_is_not_called_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, message: str
) -> None:
    class Compressed(dict[str, Any]):
        Rows = Columns = 8
        file_meta = SimpleNamespace(TransferSyntaxUID=SimpleNamespace(name="JPEG-LS"))

        @property
        def pixel_array(self) -> None:
            raise error

    stub = SimpleNamespace(dcmread=lambda path: Compressed(Rows=8, PixelData=b""))
    monkeypatch.setitem(sys.modules, "pydicom", stub)
    (tmp_path / "x.dcm").write_bytes(b"DICM")
    assert message in refusal(tmp_path / "x.dcm")
    assert ("damaged" in refusal(tmp_path / "x.dcm")) == ("damaged" in message)
