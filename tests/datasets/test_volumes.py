"""Volumes of NIfTI and DICOM are read as slices of a plane, whatever the order in which they are stored."""

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pydicom
import pytest
import torch
from highdicom.legacy import LegacyConvertedEnhancedCTImage
from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from datasets.formats import intensities, read_label_map
from datasets.volumes import read_volume
from utils.errors import UserError

SHAPE = (4, 5, 6)  # voxels to the left, posterior, superior
VALUES = np.random.default_rng(0).integers(-1000, 400, SHAPE).astype(np.int16)
AFFINE = np.diag([-0.7, -0.8, 2.5, 1.0])  # of LPS axes, in the RAS coordinates of NIfTI
AFFINE[:3, 3] = (31.0, 17.5, -40.25)


def write_nifti(path: Path, codes: str = "LPS", values: Any = VALUES) -> Any:
    """The volume with axes that lead to these sides of the patient."""
    image = nibabel.Nifti1Image(values, AFFINE)
    image = image.as_reoriented(ornt_transform(io_orientation(AFFINE), axcodes2ornt(tuple(codes))))
    image.to_filename(path)
    return image


def write_series(folder: Path, missing: int | None = None) -> list[Path]:
    """The same volume as a DICOM series, whose names are not in the order of the slices."""
    series, study, frame = generate_uid(), generate_uid(), generate_uid()
    files = []
    for number in (n for n in range(SHAPE[2]) if n != missing):
        file = pydicom.Dataset()
        file.file_meta = pydicom.dataset.FileMetaDataset()
        file.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        file.file_meta.MediaStorageSOPClassUID = file.SOPClassUID = CTImageStorage
        file.file_meta.MediaStorageSOPInstanceUID = file.SOPInstanceUID = generate_uid()
        file.SeriesInstanceUID, file.StudyInstanceUID, file.FrameOfReferenceUID = series, study, frame
        file.Modality, file.InstanceNumber, file.SeriesNumber = "CT", number + 1, 1
        file.PatientID = file.PatientName = file.StudyID = file.AccessionNumber = "1"
        file.PatientBirthDate = file.PatientSex = file.StudyDate = file.StudyTime = file.ReferringPhysicianName = ""
        file.Manufacturer, file.ImageType = "none", ["ORIGINAL", "PRIMARY", "AXIAL"]
        file.KVP = file.AcquisitionNumber = file.PositionReferenceIndicator = ""
        file.Rows, file.Columns, file.PixelSpacing, file.SliceThickness = SHAPE[1], SHAPE[0], [0.8, 0.7], 2.5
        file.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        file.ImagePositionPatient = [-31.0, -17.5, -40.25 + 2.5 * number]
        file.SamplesPerPixel, file.PhotometricInterpretation, file.PixelRepresentation = 1, "MONOCHROME2", 0
        file.BitsAllocated, file.BitsStored, file.HighBit = 16, 12, 11
        file.RescaleIntercept, file.RescaleSlope, file.RescaleType = -1024, 1, "HU"
        file.PixelData = (VALUES[:, :, number].T + 1024).astype(np.uint16).tobytes()
        path = folder / f"{(7 * number + 3) % 11:02d}.dcm"
        file.save_as(path, enforce_file_format=True)
        files.append(path)
    return sorted(files)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("codes", ["LPS", "RAS", "SAR", "PIL"])
def test_slices_do_not_depend_on_the_order_of_storage(codes: str, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"ct{suffix}"
    stored = write_nifti(path, codes)
    expected = np.clip((VALUES + 1000) / 1400, 0, 1)
    axial = read_volume([path], "axial", (-1000, 400))
    np.testing.assert_allclose(axial.slices, expected.transpose(2, 1, 0), atol=1e-6)
    coronal = read_volume([path], "coronal", (-1000, 400))
    np.testing.assert_allclose(coronal.slices, expected.transpose(1, 2, 0)[:, ::-1], atol=1e-6)
    sagittal = read_volume([path], "sagittal", (-1000, 400))
    np.testing.assert_allclose(sagittal.slices, expected.transpose(0, 2, 1)[:, ::-1], atol=1e-6)
    for volume in (axial, coronal, sagittal):
        there_and_back = volume.restore(volume.slices)
        np.testing.assert_allclose(there_and_back, np.clip((np.asarray(stored.dataobj) + 1000) / 1400, 0, 1), atol=1e-6)


def test_without_a_window_the_whole_volume_has_one_scale(tmp_path: Path) -> None:
    write_nifti(tmp_path / "ct.nii")
    slices = read_volume([tmp_path / "ct.nii"]).slices
    expected = (VALUES - VALUES.min()) / (float(VALUES.max()) - VALUES.min())
    np.testing.assert_allclose(slices, expected.transpose(2, 1, 0), atol=1e-6)


def test_series_and_frames_of_dicom_are_the_same_volume(tmp_path: Path) -> None:
    write_nifti(tmp_path / "ct.nii")
    expected = read_volume([tmp_path / "ct.nii"], window=(-1000, 400))
    files = write_series(tmp_path)
    enhanced = LegacyConvertedEnhancedCTImage(
        [pydicom.dcmread(file) for file in files], generate_uid(), 1, generate_uid(), 1
    )
    enhanced.save_as(tmp_path / "frames.dcm")
    for sources in (files, [tmp_path / "frames.dcm"]):
        volume = read_volume(sources, window=(-1000, 400))
        np.testing.assert_allclose(volume.slices, expected.slices, atol=1e-6)
        left_posterior_superior = volume.restore(volume.slices)
        corner = volume.geometry.affine @ [*(np.array(left_posterior_superior.shape) - 1) / 2, 1]
        np.testing.assert_allclose(corner, AFFINE @ [*(np.array(SHAPE) - 1) / 2, 1], atol=1e-4)


def test_series_with_a_missing_slice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="5 files, is not one volume"):
        read_volume(write_series(tmp_path, missing=2))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.zeros((4, 4, 3, 2), np.int16), "has shape 4 x 4 x 3 x 2; expected a volume of three dimensions"),
        (np.zeros((4, 4, 3), np.complex64), "values of type complex64; expected one number per voxel"),
        (np.full((4, 4, 3), np.nan, np.float32), "not finite"),
    ],
)
def test_what_is_not_a_volume_of_numbers_is_refused(values: Any, message: str, tmp_path: Path) -> None:
    nibabel.Nifti1Image(values, AFFINE).to_filename(tmp_path / "bad.nii.gz")
    with pytest.raises(UserError, match=message):
        read_volume([tmp_path / "bad.nii.gz"])


@pytest.mark.parametrize("size", [0, 10, 400, 450])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_truncated_files_are_refused(suffix: str, size: int, tmp_path: Path) -> None:
    path = tmp_path / f"ct{suffix}"
    write_nifti(path)
    path.write_bytes(path.read_bytes()[: size if suffix == ".nii" else size // 3])
    with pytest.raises(UserError, match=r"ct\.nii.*may be damaged"):
        read_volume([path])


def test_header_that_claims_a_huge_volume_is_refused(tmp_path: Path) -> None:
    header = nibabel.Nifti1Header()
    header.set_data_dtype(np.int16)
    header.set_data_shape((30000, 30000, 30000))
    (tmp_path / "huge.nii").write_bytes(header.binaryblock + bytes(100))
    with pytest.raises(UserError, match="30000 x 30000 x 30000 voxels"):
        read_volume([tmp_path / "huge.nii"])


@pytest.mark.parametrize(("axis", "plane"), [(2, "axial"), (1, "coronal"), (0, "sagittal")])
@pytest.mark.parametrize("flip", [False, True])
def test_files_of_one_slice_are_seen_as_in_prediction(axis: int, plane: str, flip: bool, tmp_path: Path) -> None:
    names = ["LR", "PA", "SI"]
    codes = [names[other][flip] for other in range(3) if other != axis] + [names[axis][flip]]
    write_nifti(tmp_path / "slice.nii", "".join(codes), VALUES.take([3], axis))
    expected = read_volume([tmp_path / "slice.nii"], plane).slices
    assert len(expected) == 1
    np.testing.assert_array_equal(intensities(tmp_path / "slice.nii")[..., 0].astype(np.float32), expected[0])
    assert torch.from_numpy(expected).shape == expected.shape  # PyTorch refuses negative strides


def test_files_of_two_dimensions_are_one_slice(tmp_path: Path) -> None:
    nibabel.Nifti1Image(VALUES[:, :, 0], np.diag([-1.0, 1, 1, 1])).to_filename(tmp_path / "flat.nii")
    expected = np.clip((VALUES[:, ::-1, 0].T + 1000) / 1400, 0, 1)
    volume = read_volume([tmp_path / "flat.nii"], window=(-1000, 400))
    np.testing.assert_allclose(volume.slices, expected[None], atol=1e-6)
    np.testing.assert_allclose(intensities(tmp_path / "flat.nii", (-1000, 400))[..., 0], expected)
    assert volume.restore(volume.slices).shape == (*SHAPE[:2], 1)


def test_values_of_dicom_are_rescaled_whatever_else_the_file_says(tmp_path: Path) -> None:
    files = write_series(tmp_path)
    expected = read_volume(files, window=(-1000, 400)).slices
    for file in files:
        dataset = pydicom.dcmread(file)
        dataset.PhotometricInterpretation = "MONOCHROME1"
        mapping = pydicom.Dataset()
        mapping.RealWorldValueSlope, mapping.RealWorldValueIntercept, mapping.LUTLabel = 2.0, 5.0, "x"
        mapping.RealWorldValueFirstValueMapped, mapping.RealWorldValueLastValueMapped = 0, 4095
        unit = pydicom.Dataset()
        unit.CodeValue, unit.CodingSchemeDesignator, unit.CodeMeaning = "1", "UCUM", "no units"
        mapping.MeasurementUnitsCodeSequence = [unit]
        dataset.RealWorldValueMappingSequence = [mapping]
        dataset.save_as(file)
    np.testing.assert_array_equal(read_volume(files, window=(-1000, 400)).slices, expected)
    scaled = (VALUES - VALUES.min()) / (float(VALUES.max()) - VALUES.min())
    np.testing.assert_allclose(read_volume(files).slices, 1 - scaled.transpose(2, 1, 0), atol=1e-6)


def test_files_of_one_slice_are_images_and_label_maps(tmp_path: Path) -> None:
    classes = (VALUES[:, :, :1] > 0).astype(np.uint8)
    write_nifti(tmp_path / "labels.nii.gz", values=classes)
    np.testing.assert_array_equal(read_label_map(tmp_path / "labels.nii.gz"), classes[:, :, 0].T)
    assert intensities(tmp_path / "labels.nii.gz", (0, 1)).shape == (5, 4, 1)
    write_nifti(tmp_path / "ct.nii")
    with pytest.raises(UserError, match="expected one slice"):
        intensities(tmp_path / "ct.nii")
