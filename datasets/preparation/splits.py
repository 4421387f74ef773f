"""Splits by patient: drawn from a seed, written as JSON, and read back."""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from pydantic import field_validator

from datasets.contract import SPLITS
from utils.config import Config, validate
from utils.errors import UserError, corrupt_file_as_user_error
from utils.noise import seed_from


class Split(Config):
    """The patients of "train", "val" and "test", sorted, and the fractions and seed they were drawn with, if any."""

    patients: dict[str, list[str]]
    fractions: list[float] | None = None
    seed: int | None = None

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
