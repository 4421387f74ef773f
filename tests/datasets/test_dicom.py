"""DICOM files become intensities, and those that cannot be read raise errors that say why."""

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from datasets.formats import intensities, read_label_map
from tests.datasets.test_formats import refusal


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


def test_dicom_of_classes_is_not_stretched(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "x.dcm", np.array([[0, 1, 2]], np.uint16), WindowCenter=1, WindowWidth=1)
    assert read_label_map(path).tolist() == [[0, 1, 2]]


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
