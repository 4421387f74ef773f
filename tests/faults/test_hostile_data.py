"""Hostile image files, HDF5 files, pickles and caches; see `tests.faults.hostile`."""

import contextlib
import json
import pickle
import random
import shutil
import struct
import zlib
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from PIL import Image

from checkpoints.preprocessing import Preprocessing
from datasets import load_dataset
from datasets.contract import check_item
from datasets.formats import intensities, read_label_map
from datasets.preparation.lidc import Split
from datasets.preparation.lidc import main as prepare_lidc
from evaluation.cache import ResultCache, _with_digest
from prediction.reading import read_image
from prediction.summary import read_summary
from tests.datasets.test_dicom import write_dicom
from tests.datasets.trees import pickle_entries, write_cityscapes
from tests.faults.hostile import FACTOR, OTHER, PLAIN, attack, mutated, mutated_bytes, written
from utils.errors import UserError


def pictures(folder: Path) -> dict[str, list[bytes]]:
    """Image files of all formats, by suffix."""
    rng, folder = np.random.default_rng(0), folder / "pictures"
    grey = Image.fromarray(rng.integers(256, size=(9, 8), dtype=np.uint8))
    deep = Image.fromarray(rng.integers(2**16, size=(9, 8), dtype=np.uint16))
    folder.mkdir()
    made: dict[str, list[bytes]] = {}
    images = {"l": grey, "rgb": grey.convert("RGB"), "p": grey.convert("P"), "1": grey.convert("1"), "16": deep}
    for suffix in ("png", "tiff", "bmp", "gif", "webp", "jpg"):
        for name, image in images.items():
            with contextlib.suppress(OSError):  # a mode that the format does not have
                image.save(folder / f"{name}.{suffix}")
                made.setdefault(suffix, []).append((folder / f"{name}.{suffix}").read_bytes())
    made["dcm"] = [write_dicom(folder / "x.dcm", np.asarray(deep), WindowCenter=3, WindowWidth=9).read_bytes()]
    for dtype in ("u1", "f4", "i8", ">f8", "?", "f2"):
        np.save(folder / "x.npy", np.asarray(grey).astype(dtype))
        made.setdefault("npy", []).append((folder / "x.npy").read_bytes())
    shutil.rmtree(folder)
    return made


def with_other_header(whole: bytes, generator: random.Random) -> bytes:
    """An NPY file whose header claims something else."""
    header = {"descr": "<f8", "fortran_order": False, "shape": (9, 8)}
    shapes = [(9,), (2**62, 4), (0, 3), (-1, 8), (9, 8, 10**6), (2**31, 2**31), (), ("x",), (9.0, 8), 9]
    types = ["O", "|O", "V8", "M8", "c16", "f16", "f2", "S3", "U9", "x", "", [("a", "O")], "(3,)f4", "i4,O", None]
    changed = mutated(header, generator, [*shapes, *types, 10**999])
    text = repr(changed).encode() + b"\n"
    return b"\x93NUMPY" + bytes([generator.choice([1, 2, 3, 9]), 0]) + struct.pack("<H", len(text)) + text + whole[-72:]


def with_checksums(whole: bytes) -> bytes:
    """A PNG whose checksums are right, so that its contents are believed."""
    data, place = bytearray(whole), 8
    while place + 12 <= len(data):
        length = int.from_bytes(data[place : place + 4], "big")
        body = data[place + 4 : place + 8 + length]
        data[place + 8 + length : place + 12 + length] = zlib.crc32(body).to_bytes(4, "big")
        place += 12 + length
        if length > len(whole):
            break
    return bytes(data[: len(whole) + 4])


ELEMENTS = [
    "Rows", "Columns", "SamplesPerPixel", "PixelRepresentation", "BitsAllocated", "BitsStored", "HighBit", "PixelData",
    "PhotometricInterpretation", "NumberOfFrames", "RescaleSlope", "RescaleIntercept", "WindowCenter", "WindowWidth",
    "PlanarConfiguration", "RedPaletteColorLookupTableDescriptor", "RedPaletteColorLookupTableData",
]  # fmt: skip


def dicom(path: Path, generator: random.Random) -> Path:
    """A DICOM file with other elements."""
    values = [*PLAIN, [0, 0, 16], "PALETTE COLOR", "YBR_FULL", "MONOCHROME1", 8, 12, 16, 32, "1e308", b"\0" * 16]
    elements = {generator.choice(ELEMENTS): generator.choice(values) for _ in range(generator.choice([1, 2, 3]))}
    stored = np.arange(72, dtype=np.uint16).reshape(9, 8)
    with contextlib.suppress(Exception):  # pydicom refuses to write some
        write_dicom(path, stored, **elements)
    return path


def test_image_files(workplace: Path) -> None:
    corpus = pictures(workplace)

    def make(generator: random.Random, folder: Path) -> Path:
        suffix = generator.choice([*corpus, "npy", "npy", "dcm"])
        whole, path = generator.choice(corpus[suffix]), folder / f"x.{suffix}"
        if suffix == "dcm" and generator.random() < 0.6:
            return dicom(written(path, whole), generator)
        if suffix == "npy" and generator.random() < 0.6:
            return written(path, with_other_header(whole, generator))
        changed = mutated_bytes(whole, generator)
        return written(path, with_checksums(changed) if suffix == "png" and generator.random() < 0.7 else changed)

    def read(path: Path) -> None:
        preprocessing = Preprocessing(image_mean=[0.5], image_std=[0.5])
        for each in (read_label_map, intensities, lambda file: read_image(file, preprocessing, (-1e3, 4e2))):
            with contextlib.suppress(UserError) if each is read_label_map else contextlib.nullcontext():
                assert np.isfinite(each(path)).all()

    attack("images", 250 * FACTOR, make, read, workplace)


SHAPES = [(3, 5, 4), (3, 2, 5, 4), (3, 2, 4, 4), (0, 5, 4), (3,), (), (3, 0, 5, 4), (3, 5000, 1, 1), (2**31, 5, 4)]
TYPES = ["u1", "f4", "i8", "u8", "?", "S3", "c8", "f2", ">i4", h5py.string_dtype(), [("a", "i4")]]


def add_array(group: h5py.Group, name: str, generator: random.Random, folder: Path) -> None:
    """An array of any kind, or something else with its name."""
    shape, dtype = generator.choice(SHAPES), generator.choice(TYPES)
    if generator.random() < 0.6:
        shape, dtype = {"images": ((3, 5, 4), "f4"), "labels": ((3, 2, 5, 4), "u1")}.get(name, ((3,), "i8"))
    how = generator.randrange(12)
    links = [h5py.SoftLink("/x"), h5py.SoftLink(f"/train/{name}"), h5py.ExternalLink(str(folder / "o.hdf5"), "train")]
    if how == 0:
        group[name] = generator.choice(links)
    elif how == 1:
        group.create_group(name)
    elif how == 2:
        group.create_dataset(name, shape, dtype, external=[(str(folder / "secret"), 0, 10**6)])
    elif how == 3:
        layout = h5py.VirtualLayout(shape, dtype)
        layout[...] = h5py.VirtualSource(str(folder / "o.hdf5"), "x", shape)
        group.create_virtual_dataset(name, layout)
    elif how == 4:
        group[name] = h5py.Empty(dtype)
    elif how == 5:
        group.create_dataset(name, shape, dtype, chunks=True, compression=9)
    else:
        values = np.full(shape, generator.choice([0, 1, 1, 2, 200, -1, 2**40, np.nan])).astype(dtype)
        group.create_dataset(name, data=values, chunks=shape if how == 6 else None)


def test_hdf5_files(workplace: Path, data_folder: Path) -> None:
    (whole,) = data_folder.glob("*.hdf5")
    (workplace / "secret").write_bytes(b"secret" * 10)

    def make(generator: random.Random, folder: Path) -> Path:
        path = folder / "x.hdf5"
        if generator.random() < 0.5:
            return written(path, mutated_bytes(whole.read_bytes(), generator))
        with h5py.File(path, "w") as file:
            if generator.random() < 0.5:
                with contextlib.suppress(Exception):
                    file.attrs[generator.choice(["num_classes", "benchmark"])] = generator.choice(PLAIN)
            for split in generator.sample(["train", "val", "x"], 2):
                for name in generator.sample(["images", "labels", "uids", "maps"], generator.choice([2, 3])):
                    with contextlib.suppress(Exception):  # what HDF5 does not write
                        add_array(file.require_group(split), name, generator, workplace)
        return path

    def read(path: Path) -> None:
        dataset = load_dataset("datasets.lidc", "train", {"path": str(path)})
        for index in range(min(len(dataset), 3)):
            check_item(dataset[index], dataset, index)
        if path.stat().st_mtime_ns % 2:
            Preprocessing.from_dataset(dataset)

    attack("hdf5", 200 * FACTOR, make, read, workplace)


def test_pickles(workplace: Path) -> None:
    entries = pickle_entries(5, 1, 4)

    def make(generator: random.Random, folder: Path) -> Path:
        arrays = [np.zeros(3), np.array("x"), np.full((4, 4), np.nan), np.float64(2), np.zeros((4, 4, 4))]
        if generator.random() < 0.5:
            contents = pickle.dumps(mutated(entries, generator, [*PLAIN, *OTHER, *arrays]), generator.randrange(6))
        else:
            contents = mutated_bytes(pickle.dumps(entries, generator.randrange(6)), generator)
        return written(folder / "x.pickle", contents)

    attack(
        "pickles", 100 * FACTOR, make, lambda path: prepare_lidc([str(path), str(path.parent / "o.hdf5")]), workplace
    )


def test_caches(workplace: Path) -> None:
    scores = {"index": 3, "name": "x", "group": 1, "size": [2, 2], "values": {"ged_16": 0.25, "calibration": [[1, 2]]}}
    lines, patients = [_with_digest("a"), *[_with_digest(json.dumps([scores]))] * 3], {"train": ["a"], "val": ["b"]}
    split = {"patients": {**patients, "test": ["c"]}, "fractions": [0.6, 0.2, 0.2], "seed": 0}
    root = write_cityscapes(workplace / "scenes", "train", {"aachen_000000_000019": np.full((16, 32), 7)})
    scenes: Any = load_dataset("datasets.cityscapes", "train", {"path": str(root), "size": [16, 32]})
    counts = scenes.class_counts()
    (stored,) = root.glob("*.json")
    summary = "image,file\n" + "a,b\n" * 3
    texts = {"rows": "\n".join([*lines, ""]), "split": json.dumps(split), "counts": stored.read_text(), "csv": summary}

    def make(generator: random.Random, folder: Path) -> tuple[str, Path]:
        name = generator.choice([*texts])
        content = mutated_bytes(texts[name].encode(), generator)
        if generator.random() < 0.5:
            tree = mutated([scores] if name == "rows" else split, generator, PLAIN)
            text = json.dumps(tree)
            content = f"{lines[0]}\n{_with_digest(text)}\n".encode() if name == "rows" else text.encode()
        return name, written(stored if name == "counts" else folder / "x", content)

    def read(given: tuple[str, Path]) -> None:
        name, path = given
        if name == "rows":
            assert all(len(image.size) == 2 for image in ResultCache(path, "a").scores.values())
        elif name == "split":
            Split.read(path).to_json()
        elif name == "counts":
            assert torch.equal(scenes.class_counts(), counts)
        else:
            read_summary(path)

    attack("caches", 100 * FACTOR, make, read, workplace)
