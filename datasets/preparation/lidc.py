"""Create the HDF5 of `datasets.lidc`: python -m datasets.preparation.lidc data_lidc.pickle OUT.hdf5 [options]

The pickle is a dict of name -> {image: H x W in [0, 1], masks: 4 of H x W, series_uid}. It is split by patient, whom
`series_uid` identifies. OUT.json lists the patients of each split. The same pickle and options give the same bytes.

    --fractions TRAIN VAL TEST    fractions of the patients (0.6 0.2 0.2)
    --seed SEED                   seed of the split (0)
    --patients FILE.json          a list of patients as in OUT.json, instead of fractions and seed
"""

import argparse
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any

import h5py
import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator
from tqdm import tqdm

from datasets.contract import SPLITS, as_label_maps
from datasets.preparation.pickles import load_arrays
from utils.config import Config, Seed, validate
from utils.errors import UserError, corrupt_file_as_user_error, run_script
from utils.noise import seed_from
from utils.paths import expand_path, write_atomically, write_text
from utils.text import visible


class Split(Config):
    """The patients of "train", "val" and "test", sorted, and the fractions and seed they were drawn with, if any."""

    patients: dict[str, list[str]]
    fractions: Annotated[list[float], Field(min_length=3, max_length=3)] | None = None
    seed: Seed | None = None

    @field_validator("patients")
    @classmethod
    def _check_patients(cls, patients: dict[str, list[str]]) -> dict[str, list[str]]:
        if patients.keys() != set(SPLITS) or not all(patients.values()):
            raise ValueError(f"expected at least one patient in each of {', '.join(SPLITS)}")
        counts = Counter(patient for names in patients.values() for patient in names)
        repeated = [patient for patient, count in counts.items() if count > 1]
        if repeated:
            raise ValueError(f"patient {repeated[0]} is listed twice; expected every patient once")
        return {split: sorted(patients[split]) for split in SPLITS}

    @staticmethod
    def draw(patients: Iterable[str], fractions: Sequence[float], seed: int) -> "Split":
        """Distribute patients at random: a function of the set of patients, the fractions and the seed. Raises
        UserError for fractions that are not three positive numbers with sum 1, and for too few patients."""
        if len(fractions) != len(SPLITS) or min(fractions) <= 0 or abs(sum(fractions) - 1) > 1e-6:
            raise UserError(f"fractions are {list(fractions)}; expected three positive numbers with sum 1")
        order = np.random.default_rng(seed_from("split", seed)).permutation(sorted(set(patients)))
        ends = np.rint(np.cumsum(fractions)[:-1] * len(order)).astype(int)
        parts = dict(zip(SPLITS, (part.tolist() for part in np.split(order, ends)), strict=True))
        return validate(Split, {"patients": parts, "fractions": list(fractions), "seed": seed}, "the split")

    @staticmethod
    def read(path: Path) -> "Split":
        """Read a split that was written by `to_json` or by hand, when it only needs the patients. Raises UserError for
        a file that cannot be read or is not a split."""
        with corrupt_file_as_user_error(path):
            contents = dict(json.loads(path.read_text(encoding="utf-8")))
        return validate(Split, contents, str(path))

    def to_json(self) -> str:
        """The split as JSON."""
        return json.dumps(self.model_dump(), indent=1) + "\n"


NUM_CLASSES = 2

Entries = dict[str, dict[str, Any]]


def main(argv: Sequence[str]) -> None:
    """Run with the arguments of the command line. Raises UserError for problems that the user can fix; nothing is
    written then."""
    arguments = _parser().parse_args(argv)
    source, out = expand_path(arguments.source), expand_path(arguments.out)
    if out.suffix == ".json" or source.resolve() in (out.resolve(), out.with_suffix(".json").resolve()):
        raise UserError(f"{out} would be overwritten, or {source}; expected another name, such as {source.stem}.hdf5")
    entries = read_pickle(source)
    if arguments.patients is not None:
        split = Split.read(expand_path(arguments.patients))
    else:
        patients = {str(entry["series_uid"]) for entry in entries.values()}
        split = Split.draw(patients, arguments.fractions, arguments.seed)
    summary: list[str] = []
    write_atomically(out, lambda path: summary.extend(write_hdf5(path, entries, split)))
    write_text(out.with_suffix(".json"), split.to_json())
    print(visible("\n".join([*summary, f"{out}, patients in {out.with_suffix('.json')}"])))


def read_pickle(path: Path) -> Entries:
    """Read the entries of a data_lidc.pickle, sorted by name. Raises UserError for a pickle that cannot be read or has
    another form."""
    contents = load_arrays(path)
    if not isinstance(contents, dict) or not contents:
        raise UserError(f"{path} holds a {type(contents).__name__}; expected a dict of names and entries")
    for name, entry in contents.items():
        if not isinstance(name, str | int):
            raise UserError(f"{path}: the name of an entry is a {type(name).__name__}; expected text")
        missing = {"image", "masks", "series_uid"} - set(entry if isinstance(entry, dict) else ())
        if missing:
            raise UserError(f"{path}: {name} lacks {', '.join(sorted(missing))}")
        if not isinstance(entry["series_uid"], str | int):
            raise UserError(
                f"{path}: the series_uid of {name} is a {type(entry['series_uid']).__name__}; expected text"
            )
    return {str(name): entry for name, entry in sorted(contents.items(), key=lambda item: str(item[0]))}


def write_hdf5(path: Path, entries: Entries, split: Split) -> list[str]:
    """Write the entries in the layout of `datasets.lidc`, and return a summary, one line per split. Raises UserError
    for a listed patient without entries, and for entries that are not images and masks of one size."""
    by_patient: dict[str, list[str]] = defaultdict(list)
    for name, entry in entries.items():
        by_patient[str(entry["series_uid"])].append(name)
    unknown = [patient for patients in split.patients.values() for patient in patients if patient not in by_patient]
    if unknown:
        raise UserError(f"patient {unknown[0]} is listed in the split, but has no images in the pickle")
    lines = [f"{'split':6s} {'slices':>8s} {'patients':>9s} {'empty masks':>18s}"]
    unused = len(entries)
    with h5py.File(path, "w") as file:
        file.attrs.update(num_classes=NUM_CLASSES, benchmark="LIDCv1")
        if split.fractions is not None and split.seed is not None:
            file.attrs.update(fractions=split.fractions, seed=split.seed)
        for name, patients in split.patients.items():
            chosen = {slice_: entries[slice_] for patient in patients for slice_ in by_patient[patient]}
            empty = _write_split(file.create_group(name), chosen)
            lines.append(f"{name:6s} {len(chosen):8d} {len(patients):9d} {f'{empty.sum()} ({empty.mean():.1%})':>18s}")
            unused -= len(chosen)
    return [*lines, f"{unused} slices belong to patients in none of the splits and were left out"] if unused else lines


def _write_split(group: h5py.Group, entries: Entries) -> NDArray[np.bool_]:
    """Write images, labels and patients, and return which masks are empty."""
    columns: dict[str, h5py.Dataset] = {}
    empty = []
    for row, (name, entry) in enumerate(tqdm(entries.items(), desc=group.name, unit="slice")):
        image, labels = _image_and_labels(entry, name)
        for key, array in (("images", image), ("labels", labels)):
            if row == 0:
                shape, layout = (len(entries), *array.shape), {"chunks": (1, *array.shape), "shuffle": True}
                # gzip at level 1: the output of lzf differs between runs
                columns[key] = group.create_dataset(key, shape, array.dtype, compression=1, **layout)
            if array.shape != columns[key].shape[1:]:
                raise UserError(f"{name}: {key} have shape {array.shape}; the others have {columns[key].shape[1:]}")
            columns[key][row] = array
        empty.append(~labels.any((1, 2)))
    group["uids"] = np.array([seed_from(str(entry["series_uid"])) for entry in entries.values()], dtype=np.int64)
    return np.array(empty)


def _image_and_labels(entry: dict[str, Any], name: str) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Convert an entry of the pickle as the benchmark does: the image in [-0.5, 0.5]."""
    masks = entry["masks"]
    parts = [entry["image"], *(masks if isinstance(masks, list) else [masks])]
    if not all(isinstance(part, np.ndarray) for part in parts):
        raise UserError(f"{name}: the image and each of the masks have to be arrays")
    try:
        image, masks = np.asarray(entry["image"], dtype=np.float64), np.asarray(masks)
    except ValueError as error:
        raise UserError(f"{name}: {error}; expected an image and masks of one size") from error
    if image.ndim != 2 or masks.ndim != 3 or masks.shape[1:] != image.shape or len(masks) == 0:
        raise UserError(f"{name}: image {image.shape} and masks {masks.shape}; expected H x W and annotators x H x W")
    if not (np.isfinite(image).all() and image.min() >= 0 and image.max() <= 1):
        raise UserError(f"{name}: the image ranges from {image.min():g} to {image.max():g}; expected values in [0, 1]")
    return (image - 0.5).astype(np.float32), as_label_maps(masks, NUM_CLASSES, name).numpy()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m datasets.preparation.lidc", add_help=False)
    parser.add_argument("source")
    parser.add_argument("out")
    parser.add_argument("--fractions", nargs=3, type=float, default=[0.6, 0.2, 0.2])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--patients")
    return parser


if __name__ == "__main__":
    run_script(main, __doc__)
