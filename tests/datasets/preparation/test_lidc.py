"""From the pickle or the crops to the HDF5: the same bytes every time, split by patient, nothing written in between."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from datasets import lidc, lidc_crops
from datasets.preparation.lidc import main
from tests.datasets.trees import CROPS, crop_paths, pickle_entries, write_crops, write_pickle
from tests.tiny import ROOT
from utils.errors import UserError
from utils.noise import seed_from

SPLITS = ("train", "val", "test")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_pickle(tmp_path / "data_lidc.pickle", pickle_entries())


def prepare(source: Path, out: Path, *options: str) -> Path:
    main([str(source), str(out), *options])
    return out


def patients_of(out: Path) -> dict[str, list[str]]:
    return json.loads(out.with_suffix(".json").read_text())["patients"]


def refusal(source: Path, *options: str) -> str:
    """What is said; nothing may have been written."""
    folder = source.parent / "out"
    with pytest.raises(UserError) as error:
        prepare(source, folder / "data.hdf5", *options)
    assert not folder.exists() or list(folder.iterdir()) == []
    return str(error.value)


def test_file_holds_every_slice_of_the_pickle(source: Path, tmp_path: Path) -> None:
    entries, out = pickle_entries(), prepare(source, tmp_path / "data.hdf5")
    with h5py.File(out) as file:
        assert {split: file[split]["images"].shape for split in SPLITS} == {
            "train": (18, 12, 12), "val": (6, 12, 12), "test": (6, 12, 12),
        }  # fmt: skip
        for split, patients in patients_of(out).items():
            expected = [
                entry for patient in patients for _, entry in sorted(entries.items()) if entry["series_uid"] == patient
            ]
            group = file[split]
            assert (group["images"].dtype, group["labels"].dtype) == (np.float32, np.uint8)
            assert np.array_equal(group["images"], np.float32([entry["image"] - 0.5 for entry in expected]))
            assert np.array_equal(group["labels"], [entry["masks"] for entry in expected])
            assert group["uids"][()].tolist() == [seed_from(entry["series_uid"]) for entry in expected]


def test_data_set_reads_what_was_prepared(source: Path, tmp_path: Path) -> None:
    dataset = lidc.get_dataset("test", str(prepare(source, tmp_path / "data.hdf5")))
    assert (len(dataset), dataset.num_classes, dataset.image_channels) == (6, 2, 1)
    assert dataset[0]["labels"].shape == (4, 12, 12)
    assert 0 < dataset[0]["group"] < 2**63


def test_same_seed_gives_the_same_bytes_and_another_seed_another_split(source: Path, tmp_path: Path) -> None:
    one, again = (prepare(source, tmp_path / name) for name in ("a.hdf5", "b.hdf5"))
    other = prepare(source, tmp_path / "c.hdf5", "--seed", "1")
    assert one.read_bytes() == again.read_bytes()
    assert one.with_suffix(".json").read_bytes() == again.with_suffix(".json").read_bytes()
    assert patients_of(one) != patients_of(other)


def test_bytes_do_not_depend_on_the_order_of_the_pickle(source: Path, tmp_path: Path) -> None:
    reordered = write_pickle(tmp_path / "other.pickle", dict(reversed(pickle_entries().items())), protocol=2)
    one, other = prepare(source, tmp_path / "a.hdf5"), prepare(reordered, tmp_path / "b.hdf5")
    assert one.read_bytes() == other.read_bytes()


def test_no_patient_is_in_two_splits(source: Path, tmp_path: Path) -> None:
    with h5py.File(prepare(source, tmp_path / "data.hdf5")) as file:
        uids = [set(file[split]["uids"][()].tolist()) for split in SPLITS]
    assert [len(one) for one in uids] == [6, 2, 2]
    assert len(set.union(*uids)) == 10


def test_list_of_patients_rebuilds_the_file(source: Path, tmp_path: Path) -> None:
    one = prepare(source, tmp_path / "a.hdf5", "--seed", "5", "--fractions", "0.5", "0.3", "0.2")
    other = prepare(source, tmp_path / "b.hdf5", "--patients", str(one.with_suffix(".json")))
    assert one.read_bytes() == other.read_bytes()
    assert one.with_suffix(".json").read_bytes() == other.with_suffix(".json").read_bytes()
    with h5py.File(one) as file:
        assert (file.attrs["seed"], file.attrs["fractions"].tolist()) == (5, [0.5, 0.3, 0.2])


def test_patients_in_no_list_are_left_out_and_said_so(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lists = {"train": ["1.3.6.1.4"], "val": ["1.3.6.1.2"], "test": ["1.3.6.1.9"]}
    (tmp_path / "lists.json").write_text(json.dumps({"patients": lists}))
    out = prepare(source, tmp_path / "data.hdf5", "--patients", str(tmp_path / "lists.json"))
    assert patients_of(out) == lists
    assert "21 slices are of patients in none of the splits" in capsys.readouterr().out


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


def test_crops_keep_the_split_of_their_folders(tmp_path: Path) -> None:
    root = write_crops(tmp_path / "crops", CROPS)
    out = prepare(root, tmp_path / "data.hdf5")
    assert patients_of(out) == {split: sorted({patient for patient, _ in named}) for split, named in CROPS.items()}
    for split in SPLITS:
        prepared, crops = lidc.get_dataset(split, str(out)), lidc_crops.get_dataset(split, str(root))
        assert len(prepared) == len(crops)
        for index in range(len(crops)):
            one, other = prepared[index], crops[index]
            assert torch.allclose(one["image"], other["image"], atol=1e-6)
            assert torch.equal(one["labels"], other["labels"])
            assert one["group"] == other["group"]


def test_crops_can_be_split_anew(tmp_path: Path) -> None:
    root = write_crops(tmp_path / "crops", CROPS)
    out = prepare(root, tmp_path / "data.hdf5", "--fractions", "0.5", "0.25", "0.25", "--seed", "1")
    assert sorted(map(len, patients_of(out).values())) == [1, 1, 2]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"image": np.full((12, 12), np.nan)}, "expected values in [0, 1]"),
        ({"image": np.full((12, 12), 7.0)}, "the image goes from 7 to 7; expected values in [0, 1]"),
        ({"image": np.zeros((12, 11))}, "image (12, 11) and masks (4, 12, 12)"),
        ({"image": np.zeros((3, 3)), "masks": np.zeros((4, 3, 3))}, "the slices before have (12, 12)"),
        ({"masks": np.full((4, 12, 12), 2)}, "label 2 at (0, 0, 0); expected classes 0 .. 1"),
        ({"masks": [np.zeros((12, 12)), np.zeros((2, 2))]}, "masks of one size"),
        ({"masks": np.zeros((0, 12, 12))}, "expected H x W and annotators x H x W"),
    ],
)
def test_entries_of_the_wrong_form_are_refused(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    entries = pickle_entries()
    entries["slice 007"].update(change)
    message = refusal(write_pickle(tmp_path / "data.pickle", entries))
    assert "slice 007" in message
    assert said in message


def test_pickles_of_another_form_are_refused(tmp_path: Path) -> None:
    assert "holds a list; expected a dict" in refusal(write_pickle(tmp_path / "data.pickle", [1]))
    entries = pickle_entries()
    del entries["slice 007"]["series_uid"]
    assert "slice 007 lacks series_uid" in refusal(write_pickle(tmp_path / "data.pickle", entries))


def test_patient_who_has_no_slices_is_refused(source: Path, tmp_path: Path) -> None:
    lists = {"train": ["1.3.6.1.4"], "val": ["1.3.6.1.2"], "test": ["nobody"]}
    (tmp_path / "lists.json").write_text(json.dumps({"patients": lists}))
    assert "patient nobody is listed in a split" in refusal(source, "--patients", str(tmp_path / "lists.json"))


def test_patient_in_two_lists_is_refused(source: Path, tmp_path: Path) -> None:
    lists = {"train": ["1.3.6.1.4"], "val": ["1.3.6.1.2"], "test": ["1.3.6.1.4"]}
    (tmp_path / "lists.json").write_text(json.dumps({"patients": lists}))
    message = refusal(source, "--patients", str(tmp_path / "lists.json"))
    assert f"{tmp_path / 'lists.json'}: patient 1.3.6.1.4 is listed in train and in test" in message


def test_crops_without_a_label_map_are_refused(tmp_path: Path) -> None:
    root = write_crops(tmp_path / "crops", CROPS)
    crop_paths(root, "test", "LIDC-IDRI-0003", "z9_c1")[1][0].unlink()
    assert "z9_c1.png lacks z9_c1_l0.png" in refusal(root)


def test_mistakes_end_with_one_message_and_status_two(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "datasets.preparation.lidc",
        str(tmp_path / "nowhere.pickle"),
        str(tmp_path / "out.hdf5"),
    ]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert result.stderr.startswith(f"error: {tmp_path / 'nowhere.pickle'} cannot be read")
    assert list(tmp_path.iterdir()) == []
