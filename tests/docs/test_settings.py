"""The reference of the settings is complete and up to date."""

import pytest

from docs.settings import Row, reference, rows
from evaluation.settings import EvalSettings
from tests import tiny
from training.settings import TrainSettings
from utils.config import all_keys

SCHEMAS = pytest.mark.parametrize("schema", [TrainSettings, EvalSettings])


def row_of(schema: type[TrainSettings | EvalSettings], name: str) -> Row:
    (row,) = (row for row in rows(schema) if row.name == name)
    return row


def test_committed_reference_is_up_to_date() -> None:
    committed = (tiny.ROOT / "docs" / "settings.md").read_text(encoding="utf-8")
    assert committed == reference(), "run python docs/settings.py > docs/settings.md"


@SCHEMAS
def test_every_setting_has_a_row_with_its_meaning(schema: type[TrainSettings | EvalSettings]) -> None:
    meanings = {row.name: row.meaning for row in rows(schema)}
    groups = {name.rpartition(".")[0] for name in meanings}
    assert set(meanings) | groups == {*all_keys(schema), ""}
    assert all(meanings.values())


def test_rows_show_values_and_defaults() -> None:
    assert row_of(TrainSettings, "batch_size")[1:3] == ("integer (≥ 1)", "`64`")
    assert row_of(TrainSettings, "cache")[1:3] == ("`memory`, `device`, `null`", "`null`")
    assert row_of(TrainSettings, "optim.lr_params.min_lr")[1:3] == ("number (≥ 0)", "`1e-06`")
    assert row_of(TrainSettings, "class_weights").values == "list of number, `uniform`, `weighted`, `null`"
    assert row_of(TrainSettings, "feature_cond_encoder")[1:3] == ("mapping, `null`", "`null`")
    assert row_of(TrainSettings, "feature_cond_encoder.model")[1:3] == (
        "`dino_vits8`, `dino_vitb8`, `dino_vits16`, `dino_vitb16`", "`dino_vits8`",
    )  # fmt: skip
    assert row_of(EvalSettings, "sweep.samplers").values == "list of `ancestral`, `ddim`"
    assert row_of(EvalSettings, "seeds")[1:3] == ("list of integer (≥ 0, < 2^63)", "`[0]`")
