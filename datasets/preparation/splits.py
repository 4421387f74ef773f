"""Which patients are in which split: drawn from a seed, written as JSON, and read back."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from datasets.loading import SPLITS
from utils.errors import UserError
from utils.noise import seed_from


@dataclass(frozen=True)
class Split:
    """A split by patient.

    Attributes:
        patients: the patients of "train", "val" and "test", sorted.
        fractions: the share of the patients that each of them was to get, or None where they were not drawn.
        seed: that they were drawn with, or None.
    """

    patients: dict[str, list[str]]
    fractions: list[float] | None = None
    seed: int | None = None

    def __post_init__(self) -> None:
        owner: dict[str, str] = {}
        for split in SPLITS:
            for patient in self.patients[split]:
                if patient in owner:
                    raise UserError(
                        f"patient {patient} is listed in {owner[patient]} and in {split}; expected every patient once"
                    )
                owner[patient] = split
            if not self.patients[split]:
                raise UserError(f"the split {split} has no patients; expected at least one in each of train, val, test")

    @classmethod
    def draw(cls, patients: Iterable[str], fractions: Sequence[float], seed: int) -> "Split":
        """Deal the patients at random; the same patients, fractions and seed always give the same split.

        Raises:
            UserError: for fractions that are not three positive numbers with sum 1, and for too few patients.
        """
        if len(fractions) != len(SPLITS) or min(fractions) <= 0 or abs(sum(fractions) - 1) > 1e-6:
            raise UserError(f"fractions are {list(fractions)}; expected three positive numbers with sum 1")
        order = np.random.default_rng(seed_from("split", seed)).permutation(sorted(set(patients)))
        ends = np.rint(np.cumsum(fractions)[:-1] * len(order)).astype(int)
        parts = [sorted(map(str, part)) for part in np.split(order, ends)]
        return cls(dict(zip(SPLITS, parts, strict=True)), list(fractions), seed)

    @classmethod
    def read(cls, path: Path) -> "Split":
        """A split as `text` has it.

        Raises:
            UserError: for a file that cannot be read or is of another form, and for a patient who is listed twice.
        """
        try:
            contents = json.loads(path.read_text(encoding="utf-8"))
            lists = {split: sorted(map(str, contents["patients"][split])) for split in SPLITS}
            split = contents.get("fractions"), contents.get("seed")
        except OSError as error:
            raise UserError(f"{path} cannot be read: {error.strerror or error}") from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(
                f'{path} is no list of patients; expected JSON {{"patients": {{"train": [...], "val": [...], '
                f'"test": [...]}}}}'
            ) from error
        try:
            return cls(lists, *split)
        except UserError as error:
            raise UserError(f"{path}: {error}") from error

    def text(self) -> str:
        """The split as JSON."""
        return json.dumps(asdict(self), indent=1) + "\n"
