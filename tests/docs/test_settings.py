"""The reference of the settings is complete and up to date."""

import pytest

from docs.settings import reference, rows
from evaluation.settings import EvalSettings
from tests import tiny
from training.settings import TrainSettings
from utils.config import all_keys

SCHEMAS = pytest.mark.parametrize("schema", [TrainSettings, EvalSettings])


def test_committed_reference_is_up_to_date() -> None:
    committed = (tiny.ROOT / "docs" / "settings.md").read_text(encoding="utf-8")
    assert committed == reference(), "run python docs/settings.py > docs/settings.md"


@SCHEMAS
def test_every_setting_has_a_row_with_its_meaning(schema: type[TrainSettings | EvalSettings]) -> None:
    meanings = {row.name: row.meaning for row in rows(schema)}
    groups = {name.rpartition(".")[0] for name in meanings}
    assert set(meanings) | groups == {*all_keys(schema), ""}
    assert all(meanings.values())
