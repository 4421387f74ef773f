"""From the pickle to the HDF5: the same bytes every time, split by patient, nothing written on errors."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from datasets import lidc
from datasets.preparation.lidc import main
from tests import tiny
from tests.datasets.trees import pickle_entries, write_pickle
from tests.tiny import ROOT
from utils.errors import UserError
from utils.noise import seed_from

SPLITS = ("train", "val", "test")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_pickle(tmp_path / "data_lidc.pickle", pickle_entries())


def prepare(source: Path, out: Path, *options: str) -> tuple[bytes, bytes]:
    """The HDF5 and the list of patients."""
    main([str(source), str(out), *options])
    return out.read_bytes(), out.with_suffix(".json").read_bytes()


def refusal(source: Path, *options: str) -> str:
    """The message; nothing may have been written."""
    folder = source.parent / "out"
    with pytest.raises(UserError) as error:
        prepare(source, folder / "data.hdf5", *options)
    assert not folder.exists() or list(folder.iterdir()) == []
    return str(error.value)


def patient_list(folder: Path, train: str, val: str, test: str) -> str:
    path = folder / "patients.json"
    path.write_text(json.dumps({"patients": {"train": [train], "val": [val], "test": [test]}}))
    return str(path)


def test_file_holds_every_slice_of_the_pickle(source: Path, tmp_path: Path) -> None:
    prepare(source, out := tmp_path / "data.hdf5")
    patients = json.loads(out.with_suffix(".json").read_text())["patients"]
    assert {split: len(patients[split]) for split in SPLITS} == {"train": 6, "val": 2, "test": 2}
    assert len(set().union(*patients.values())) == 10
    entries = [entry for _, entry in sorted(pickle_entries().items())]
    with h5py.File(out) as file:
        for split in SPLITS:
            group = file[split]
            expected = [entry for patient in patients[split] for entry in entries if entry["series_uid"] == patient]
            assert (group["images"].dtype, group["labels"].dtype) == (np.float32, np.uint8)
            assert np.array_equal(group["images"], np.float32([entry["image"] - 0.5 for entry in expected]))
            assert np.array_equal(group["labels"], [entry["masks"] for entry in expected])
            assert group["uids"][()].tolist() == [seed_from(entry["series_uid"]) for entry in expected]


def test_dataset_reads_the_prepared_file(source: Path, tmp_path: Path) -> None:
    prepare(source, tmp_path / "data.hdf5")
    dataset = lidc.get_dataset("test", str(tmp_path / "data.hdf5"))
    assert (len(dataset), dataset.num_classes, dataset.image_channels) == (6, 2, 1)
    assert dataset[0]["labels"].shape == (4, 12, 12)
    assert 0 < dataset[0]["group"] < 2**63


def test_bytes_depend_only_on_contents_and_options(source: Path, tmp_path: Path) -> None:
    first = prepare(source, tmp_path / "a.hdf5")
    reordered = write_pickle(tmp_path / "other.pickle", dict(reversed(pickle_entries().items())), protocol=2)
    assert prepare(reordered, tmp_path / "b.hdf5") == first
    assert prepare(source, tmp_path / "c.hdf5", "--seed", "1")[1] != first[1]


def test_list_of_patients_rebuilds_the_file(source: Path, tmp_path: Path) -> None:
    first = prepare(source, tmp_path / "a.hdf5", "--seed", "5", "--fractions", "0.5", "0.3", "0.2")
    assert prepare(source, tmp_path / "b.hdf5", "--patients", str(tmp_path / "a.json")) == first
    with h5py.File(tmp_path / "b.hdf5") as file:
        assert (file.attrs["seed"], file.attrs["fractions"].tolist()) == (5, [0.5, 0.3, 0.2])


def test_summary_counts_slices_patients_and_empty_masks(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prepare(source, tmp_path / "data.hdf5")
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == ["split", "slices", "patients", "empty", "masks"]
    assert lines[1:4] == [
        ["train", "18", "6", "18", "(25.0%)"],
        ["val", "6", "2", "6", "(25.0%)"],
        ["test", "6", "2", "6", "(25.0%)"],
    ]
    prepare(source, tmp_path / "data.hdf5", "--patients", patient_list(tmp_path, "1.3.6.1.4", "1.3.6.1.2", "1.3.6.1.9"))
    assert "21 slices belong to patients in none of the splits" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image": np.full((12, 12), np.nan)}, "expected values in [0, 1]"),
        ({"image": np.full((12, 12), 7.0)}, "the image ranges from 7 to 7; expected values in [0, 1]"),
        ({"image": np.zeros((12, 11))}, "image (12, 11) and masks (4, 12, 12)"),
        ({"image": np.zeros((3, 3)), "masks": np.zeros((4, 3, 3))}, "the others have (12, 12)"),
        ({"masks": np.full((4, 12, 12), 2)}, "label 2 at (0, 0, 0); expected classes 0 .. 1"),
        ({"masks": [np.zeros((12, 12)), np.zeros((2, 2))]}, "masks of one size"),
        ({"masks": np.zeros((0, 12, 12))}, "expected H x W and annotators x H x W"),
    ],
)
def test_entry_of_the_wrong_form_is_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    entries = pickle_entries()
    entries["slice 007"].update(change)
    said = refusal(write_pickle(tmp_path / "data.pickle", entries))
    assert "slice 007" in said
    assert message in said


def test_pickle_of_another_form_is_refused(tmp_path: Path) -> None:
    assert "holds a list; expected a dict" in refusal(write_pickle(tmp_path / "data.pickle", [1]))
    entries = pickle_entries()
    del entries["slice 007"]["series_uid"]
    assert "slice 007 lacks series_uid" in refusal(write_pickle(tmp_path / "data.pickle", entries))


def test_patients_that_do_not_fit_are_refused(source: Path, tmp_path: Path) -> None:
    path = patient_list(tmp_path, "1.3.6.1.4", "1.3.6.1.2", "nobody")
    assert "patient nobody is listed in the split" in refusal(source, "--patients", path)
    path = patient_list(tmp_path, "1.3.6.1.4", "1.3.6.1.2", "1.3.6.1.4")
    assert f"{path}: `patients`: patient 1.3.6.1.4 is listed twice" in refusal(source, "--patients", path)


def test_mistakes_end_with_one_message_and_status_two(tmp_path: Path) -> None:
    command = "datasets.preparation.lidc", str(tmp_path / "nowhere.pickle"), str(tmp_path / "out.hdf5")
    result = subprocess.run([sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert result.stderr == f"error: {tmp_path / 'nowhere.pickle'} cannot be read: No such file or directory\n"
    assert list(tmp_path.iterdir()) == []


def test_neither_source_nor_result_is_overwritten(source: Path, tmp_path: Path) -> None:
    before = source.read_bytes()
    for out in (source, tmp_path / "out.json"):
        assert "would be overwritten" in tiny.refusal(main, [str(source), str(out)])
    assert source.read_bytes() == before
    assert not (tmp_path / "out.json").exists()
