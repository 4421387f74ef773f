"""Make the HDF5 of `datasets.lidc`: python -m datasets.preparation.lidc SOURCE OUT.hdf5 [options]

SOURCE is data_lidc.pickle (a dict of name -> {image: H x W in [0, 1], masks: 4 of H x W, series_uid}) or the folder
that holds the LIDCv2 crops (see `datasets.lidc_crops`), which are cut to 128 x 128. The split is by patient, whom
`series_uid` stands for in the pickle. OUT.json lists the patients of each split. Nothing depends on the machine or the
time: the same source and split give the same bytes.

    --fractions TRAIN VAL TEST    shares of the patients; by default 0.6 0.2 0.2 of a pickle, and the crops as their
                                  folders split them
    --seed SEED                   of the split (0)
    --patients FILE.json          a list of patients as written beside an HDF5, in the place of fractions and seed
"""

import argparse
import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from datasets.checks import label_maps
from datasets.lidc_crops import Crop, find_crops
from datasets.loading import SPLITS
from datasets.preparation.pickles import load_arrays
from datasets.preparation.splits import Split
from utils.errors import UserError, run_script
from utils.noise import seed_from
from utils.paths import expand_path, write_atomically, write_text

NUM_CLASSES = 2
FRACTIONS = (0.6, 0.2, 0.2)


class Slice(NamedTuple):
    """One image: its name, its patient, and how to read it (H x W) with its label maps (uint8, A x H x W)."""

    name: str
    patient: str
    read: Callable[[], tuple[NDArray[Any], NDArray[np.uint8]]]


class Counts(NamedTuple):
    """What went into a split."""

    slices: int
    patients: int
    masks: int
    empty_masks: int


def main(argv: Sequence[str]) -> None:
    """Run from the command line's arguments.

    Raises:
        UserError: for whatever the user can mend; nothing is written then.
    """
    arguments = _parser().parse_args(argv)
    source, out = expand_path(arguments.source), expand_path(arguments.out)
    slices, split = (crops_of if source.is_dir() else slices_of_pickle)(source)
    if arguments.patients is not None:
        split = Split.read(expand_path(arguments.patients))
    elif split is None or arguments.fractions is not None:
        split = Split.draw({s.patient for s in slices}, arguments.fractions or FRACTIONS, arguments.seed)
    counts: dict[str, Counts] = {}
    write_atomically(out, lambda path: counts.update(write_hdf5(path, slices, split)))
    lists = out.with_suffix(".json")
    write_text(lists, split.text())
    print(summary(counts))
    left_out = len(slices) - sum(count.slices for count in counts.values())
    if left_out:
        print(f"{left_out} slices are of patients in none of the splits and were left out")
    print(f"{out}, patients in {lists}")


def slices_of_pickle(path: Path) -> tuple[list[Slice], None]:
    """The slices of a data_lidc.pickle, sorted by name. It comes without a split.

    Raises:
        UserError: for a pickle that cannot be read or has another form.
    """
    contents = load_arrays(path)
    if not isinstance(contents, dict) or not contents:
        raise UserError(
            f"{path} holds a {type(contents).__name__}; expected a dict of name -> image, masks, series_uid"
        )
    for name, entry in contents.items():
        missing = {"image", "masks", "series_uid"} - set(entry if isinstance(entry, dict) else ())
        if missing:
            raise UserError(f"{path}: {name} lacks {', '.join(sorted(missing))}")
    return [
        Slice(str(name), str(entry["series_uid"]), functools.partial(_entry, entry, f"{path}: {name}"))
        for name, entry in sorted(contents.items(), key=lambda pair: str(pair[0]))
    ], None


def crops_of(path: Path) -> tuple[list[Slice], Split]:
    """The slices of the LIDCv2 crops and the split that the folders make.

    Raises:
        UserError: as `find_crops`.
    """
    crops: dict[str, list[Crop]] = {split: find_crops(path, split) for split in SPLITS}
    split = Split({name: sorted({crop.patient for crop in found}) for name, found in crops.items()})
    return [Slice(crop.name, crop.patient, crop.read) for found in crops.values() for crop in found], split


def write_hdf5(path: Path, slices: Sequence[Slice], split: Split) -> dict[str, Counts]:
    """Write the slices in the layout of `datasets.lidc` and count what went in.

    Raises:
        UserError: for a listed patient without slices, and for slices that are not images with label maps of one size.
    """
    of_patient: dict[str, list[Slice]] = {}
    for slice_ in slices:
        of_patient.setdefault(slice_.patient, []).append(slice_)
    unknown = [patient for patients in split.patients.values() for patient in patients if patient not in of_patient]
    if unknown:
        raise UserError(f"patient {unknown[0]} is listed in a split, but the source has no slices of this patient")
    chosen = {name: [s for patient in split.patients[name] for s in of_patient[patient]] for name in SPLITS}
    with h5py.File(path, "w") as file, tqdm(total=sum(map(len, chosen.values())), unit="slice") as bar:
        file.attrs["num_classes"] = NUM_CLASSES
        if split.fractions is not None and split.seed is not None:
            file.attrs.update(fractions=split.fractions, seed=split.seed)
        return {name: _write_split(file.create_group(name), chosen[name], bar) for name in SPLITS}


def summary(counts: dict[str, Counts]) -> str:
    """One line a split: slices, patients, and how many masks are empty."""
    lines = [f"{'split':6s} {'slices':>8s} {'patients':>9s} {'empty masks':>18s}"]
    for split, count in counts.items():
        empty = f"{count.empty_masks} ({count.empty_masks / count.masks:.1%})"
        lines.append(f"{split:6s} {count.slices:8d} {count.patients:9d} {empty:>18s}")
    return "\n".join(lines)


def _write_split(group: h5py.Group, slices: Sequence[Slice], bar: "tqdm[Any]") -> Counts:
    columns: dict[str, h5py.Dataset] = {}
    empty = 0
    for row, slice_ in enumerate(slices):
        values = dict(zip(("images", "labels"), slice_.read(), strict=True))
        for name, value in values.items():
            if row == 0:
                # gzip and not lzf, whose output is not the same every time
                columns[name] = group.create_dataset(
                    name,
                    (len(slices), *value.shape),
                    value.dtype,
                    chunks=(1, *value.shape),
                    compression=1,
                    shuffle=True,
                )
            if value.shape != columns[name].shape[1:]:
                raise UserError(
                    f"{slice_.name}: {name} have shape {value.shape}; the slices before have {columns[name].shape[1:]}"
                )
            columns[name][row] = value
        empty += int((~values["labels"].any((1, 2))).sum())
        bar.update()
    group["uids"] = np.array([seed_from(slice_.patient) for slice_ in slices], dtype=np.int64)
    masks = len(slices) * columns["labels"].shape[1]
    return Counts(len(slices), len({slice_.patient for slice_ in slices}), masks, empty)


def _entry(entry: dict[str, Any], where: str) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """An entry of the pickle as the benchmark's HDF5 has it: the image in [-0.5, 0.5]."""
    try:
        image, masks = np.asarray(entry["image"], dtype=np.float64), np.asarray(entry["masks"])
    except ValueError as error:
        raise UserError(f"{where}: {error}; expected an image and masks of one size") from error
    if image.ndim != 2 or masks.ndim != 3 or masks.shape[1:] != image.shape or len(masks) == 0:
        raise UserError(f"{where}: image {image.shape} and masks {masks.shape}; expected H x W and annotators x H x W")
    if not (np.isfinite(image).all() and image.min() >= 0 and image.max() <= 1):
        raise UserError(f"{where}: the image goes from {image.min():g} to {image.max():g}; expected values in [0, 1]")
    return (image - 0.5).astype(np.float32), label_maps(masks, NUM_CLASSES, where).numpy()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m datasets.preparation.lidc", add_help=False)
    parser.add_argument("source")
    parser.add_argument("out")
    parser.add_argument("--fractions", nargs=3, type=float)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--patients")
    return parser


if __name__ == "__main__":
    run_script(main, __doc__)
