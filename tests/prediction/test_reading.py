"""Image files of all kinds become the input of the network, and others raise errors that say why."""

import struct
import sys
import zlib
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
from utils.errors import UserError

RAMP = np.arange(6 * 5, dtype=np.uint8).reshape(6, 5) * 8
WIDE = (RAMP.astype(np.uint16) + 7) * 100


def preprocessing(mean: Sequence[float], std: Sequence[float]) -> Preprocessing:
    return Preprocessing(image_mean=list(mean), image_std=list(std))


def saved(path: Path, values: Any, **options: Any) -> Path:
    if path.suffix == ".npy":
        np.save(path, values)
    else:
        (values if isinstance(values, Image.Image) else Image.fromarray(values)).save(path, **options)
    return path


@pytest.mark.parametrize(
    ("name", "values", "expected"),
    [
        ("x.png", RAMP, RAMP / 255), ("x.tif", RAMP, RAMP / 255), ("x.TIFF", RAMP, RAMP / 255),
        ("wide.png", WIDE, RAMP / RAMP.max()), ("wide.tif", WIDE, RAMP / RAMP.max()),
        ("unit.npy", np.array([[0.25, 0.5]]), [[0.25, 0.5]]),
        ("floats.npy", np.array([[-1.0, 0.0, 3.0]]), [[0, 0.25, 1]]),
        ("integers.npy", np.array([[-1000, 0, 1000]]), [[0, 0.5, 1]]),
        ("bits.npy", np.array([[True, False]]), [[1, 0]]),
        ("constant.npy", np.full((1, 2), 9.0), [[0, 0]]),
    ],
)  # fmt: skip
def test_values_become_intensities(tmp_path: Path, name: str, values: np.ndarray, expected: Any) -> None:
    assert np.allclose(intensities(saved(tmp_path / name, values))[..., 0], expected)


def test_channels_are_scaled_as_in_training(tmp_path: Path) -> None:
    values = np.stack([RAMP, 255 - RAMP, RAMP // 2], axis=-1)
    image = read_image(saved(tmp_path / "x.png", values), preprocessing(Cityscapes.image_mean, Cityscapes.image_std))
    expected = (values / 255 - np.array(Cityscapes.image_mean)) / np.array(Cityscapes.image_std)
    assert (image.shape, image.dtype) == ((1, 3, 6, 5), torch.float32)
    assert torch.allclose(image[0], torch.from_numpy(expected).movedim(-1, 0).float(), atol=1e-6)
    np.save(tmp_path / "x.npy", np.random.default_rng(0).random((4, 6, 5)))
    assert read_image(tmp_path / "x.npy", preprocessing([0.5] * 5, [0.5] * 5)).shape == (1, 5, 4, 6)


def test_colours_become_grey_by_luminance_and_grey_is_repeated(tmp_path: Path) -> None:
    green = saved(tmp_path / "green.png", np.full((4, 4, 3), (0, 255, 0), np.uint8))
    assert torch.allclose(read_image(green, preprocessing([0], [1])), torch.full((1, 1, 4, 4), 0.587))
    repeated = read_image(saved(tmp_path / "grey.png", RAMP), preprocessing([0] * 3, [1] * 3))
    assert torch.equal(repeated[0, 0], repeated[0, 2])
    assert repeated.shape == (1, 3, 6, 5)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "1"])
def test_transparency_palettes_and_single_bits_are_supported(tmp_path: Path, mode: str) -> None:
    picture = Image.fromarray(np.where(RAMP > 100, 255, 0).astype(np.uint8)).convert(mode, dither=Image.Dither.NONE)
    if mode in ("RGBA", "LA"):
        picture.putalpha(0)
    read = read_image(saved(tmp_path / "x.png", picture), preprocessing([0.5], [0.5]))
    assert torch.allclose(read[0, 0], torch.from_numpy(np.where(RAMP > 100, 1.0, -1.0)).float(), atol=1e-6)


def test_colours_of_16_bits_are_refused_rather_than_cut(tmp_path: Path) -> None:
    channels = np.stack([WIDE, WIDE // 2, WIDE // 3, WIDE])
    for name, written in (("rgb.png", channels[:3]), ("rgba.png", channels)):
        (tmp_path / name).write_bytes(png_of_16_bits(written))
        assert "16 bits per colour" in refusal(tmp_path / name)
    content = bytearray(saved(tmp_path / "x.tif", Image.new("RGB", (4, 4))).read_bytes())
    assert intensities(tmp_path / "x.tif").shape == (4, 4, 3)
    place = content.find((8).to_bytes(2, "little") * 3)
    content[place : place + 6] = (16).to_bytes(2, "little") * 3
    (tmp_path / "x.tif").write_bytes(bytes(content) + bytes(48))
    assert "16 bits per colour" in refusal(tmp_path / "x.tif")


def png_of_16_bits(channels: np.ndarray) -> bytes:
    """A PNG of 3 or 4 channels (channels x H x W), which Pillow cannot write."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    _, height, width = channels.shape
    header = struct.pack(">IIBBBBB", width, height, 16, 2 if len(channels) == 3 else 6, 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in np.moveaxis(channels, 0, -1))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def test_window_replaces_the_scale_of_the_file(tmp_path: Path) -> None:
    for name, values in (("x.npy", [[-1000.0, 400.0, 2000.0, -300.0]]), ("y.npy", [[-300, 400]])):
        np.save(tmp_path / name, np.array(values))
    assert np.allclose(intensities(tmp_path / "x.npy", (-1000, 400))[..., 0], [[0, 1, 1, 0.5]])
    assert np.allclose(intensities(tmp_path / "y.npy", (-1000, 400))[..., 0], [[0.5, 1]])
    assert np.allclose(intensities(saved(tmp_path / "x.png", RAMP), (0, 128))[..., 0], (RAMP / 128).clip(0, 1))


def test_variables_in_the_name_of_a_found_file_are_not_expanded(tmp_path: Path) -> None:
    (tmp_path / "$HOME").mkdir()
    path = saved(tmp_path / "$HOME" / "x.png", RAMP)
    assert read_image(path, preprocessing([0.5], [0.5])).shape == (1, 1, 6, 5)


def test_programs_are_not_started_for_files_that_pillow_would_give_them(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 4 4\n%%EndComments\n")
    assert "cannot identify" in refusal(tmp_path / "x.png")


def test_pictures_are_rotated_as_their_exif_data_say(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate by 90 degrees
    assert intensities(saved(tmp_path / "x.jpg", Image.new("RGB", (20, 10)), exif=exif)).shape == (20, 10, 3)


def refusal(path: Path) -> str:
    with pytest.raises(UserError) as error:
        read_image(path, preprocessing([0.5], [0.5]))
    assert str(path) in str(error.value)
    return str(error.value)


def test_files_that_are_not_pictures_raise_errors(tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("this is no picture")
    (tmp_path / "empty.jpg").touch()
    whole = saved(tmp_path / "whole.jpg", np.random.default_rng(0).integers(256, size=(64, 64, 3), dtype=np.uint8))
    (tmp_path / "cut.jpg").write_bytes(whole.read_bytes()[:1500])
    saved(tmp_path / "pages.tif", Image.fromarray(RAMP), save_all=True, append_images=[Image.fromarray(RAMP)] * 2)
    assert "cannot be read; it may be damaged" in refusal(tmp_path / "text.png")
    assert "is empty" in refusal(tmp_path / "empty.jpg")
    assert "truncated" in refusal(tmp_path / "cut.jpg")
    assert "has 3 pages; expected one" in refusal(tmp_path / "pages.tif")
    assert "there is no file" in refusal(tmp_path / "nowhere.png")


def test_decompression_bombs_raise_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "MAX_PIXELS", 1000)
    for limit in (1000, 100):  # Pillow warns of the one and refuses the other
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        assert "pixels, the limit" in refusal(saved(tmp_path / "x.png", np.zeros((40, 40), np.uint8)))
    assert "more than 1,000 pixels" in refusal(saved(tmp_path / "x.npy", np.zeros((40, 40))))


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
        (np.array([[{}]]), "Python objects in dtype"),
    ],
)
def test_arrays_that_are_not_images_raise_errors(tmp_path: Path, values: np.ndarray, message: str) -> None:
    assert message in refusal(saved(tmp_path / "x.npy", values))


def test_files_that_are_not_one_array_raise_errors(tmp_path: Path) -> None:
    whole = saved(tmp_path / "whole.npy", np.zeros((40, 40)))
    (tmp_path / "cut.npy").write_bytes(whole.read_bytes()[:300])
    (tmp_path / "text.npy").write_text("no array")
    with (tmp_path / "several.npy").open("wb") as file:
        np.savez(file, a=np.zeros((4, 4)))
    assert "several arrays" in refusal(tmp_path / "several.npy")
    for name in ("cut", "text"):
        assert "may be damaged" in refusal(tmp_path / f"{name}.npy")


def write_dicom(path: Path, stored: np.ndarray, **elements: Any) -> Path:
    """Write a CT slice of 16-bit stored values, H x W or frames x H x W, with additional data elements."""
    pydicom = pytest.importorskip("pydicom", reason="pydicom is not installed")
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

    file = pydicom.Dataset()
    file.file_meta = pydicom.dataset.FileMetaDataset()
    file.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    file.file_meta.MediaStorageSOPClassUID = file.SOPClassUID = CTImageStorage
    file.file_meta.MediaStorageSOPInstanceUID = file.SOPInstanceUID = "1.2.3"
    values = {
        "Rows": stored.shape[-2], "Columns": stored.shape[-1], "SamplesPerPixel": 1, "PixelRepresentation": 0,
        "BitsAllocated": 16, "BitsStored": 16, "HighBit": 15, "PhotometricInterpretation": "MONOCHROME2",
        "PixelData": stored.tobytes(), **elements,
    }  # fmt: skip
    for name, value in values.items():
        setattr(file, name, value)
    file.save_as(path, enforce_file_format=True)
    return path


def test_dicom_is_rescaled_and_clipped_to_its_window(tmp_path: Path) -> None:
    hounsfield = np.array([[-1000, -600, -599], [-200, 200, 400]])
    stored, stretched = (hounsfield + 1024).astype(np.uint16), (hounsfield + 1000) / 1400
    rescale = {"RescaleSlope": 1, "RescaleIntercept": -1024}
    for name, elements, expected in (
        ("without_suffix", rescale, stretched),
        ("window.dcm", {**rescale, "WindowCenter": [-599.5, 40], "WindowWidth": [801, 400]},
         [[0, 0.5, 0.50125], [1, 1, 1]]),
        ("inverted.dcm", {"PhotometricInterpretation": "MONOCHROME1"}, 1 - stretched),
    ):  # fmt: skip
        assert np.allclose(intensities(write_dicom(tmp_path / name, stored, **elements))[..., 0], expected), name


def test_dicom_with_a_window_of_the_user_is_only_rescaled(tmp_path: Path) -> None:
    stored = np.array([[24, 1424, 724]], np.uint16)
    path = write_dicom(tmp_path / "x.dcm", stored, RescaleIntercept=-1024, WindowCenter=0, WindowWidth=10)
    assert np.allclose(intensities(path, (-1000, 400))[..., 0], [[0, 1, 0.5]])


def test_dicom_with_a_palette_has_its_colours(tmp_path: Path) -> None:
    table = {}
    for name, values in (("Red", [0, 65535]), ("Green", [0, 32768]), ("Blue", [0, 0])):
        table[f"{name}PaletteColorLookupTableDescriptor"] = [2, 0, 16]
        table[f"{name}PaletteColorLookupTableData"] = np.array(values, "<u2").tobytes()
    path = write_dicom(
        tmp_path / "x.dcm", np.array([[0, 1]], np.uint16), PhotometricInterpretation="PALETTE COLOR", **table
    )
    assert np.allclose(intensities(path), [[[0, 0, 0], [1, 0.5, 0]]], atol=1e-4)


def test_dicom_without_exactly_one_complete_image_raises_errors(tmp_path: Path) -> None:
    stored = np.zeros((8, 8), np.uint16)
    assert "contains 3 images" in refusal(write_dicom(tmp_path / "3.dcm", np.stack([stored] * 3), NumberOfFrames=3))
    (tmp_path / "cut.dcm").write_bytes(write_dicom(tmp_path / "whole.dcm", stored).read_bytes()[:-50])
    (tmp_path / "text.dcm").write_text("no DICOM")
    for name in ("cut.dcm", "text.dcm"):
        assert "may be damaged" in refusal(tmp_path / name)


def test_dicom_without_pydicom_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pydicom", None)
    for name in ("x.dcm", "IM0001"):
        (tmp_path / name).write_bytes(bytes(128) + b"DICM")
        assert "pip install pydicom" in refusal(tmp_path / name)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (RuntimeError("all plugins are missing dependencies:\n\tgdcm - requires gdcm"), "pip install pylibjpeg"),
        (NotImplementedError("'Transfer Syntax UID' is not supported"), "pydicom does not support"),
        (RuntimeError("exceptions were raised by all available plugins"), "may be damaged"),
    ],
)
def test_compression_that_is_not_supported_is_not_called_damage(
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
