"""The reference of the settings: complete, and as the schema has it."""

import pytest

from tests import tiny
from utils.reference import Line, lines, reference
from utils.schema import EvalSettings, TrainSettings
from utils.settings import all_keys

SCHEMAS = pytest.mark.parametrize("schema", [TrainSettings, EvalSettings])


def line_of(schema: type[TrainSettings | EvalSettings], name: str) -> Line:
    (line,) = (line for line in lines(schema) if line.name == name)
    return line


def test_committed_reference_is_the_schemas() -> None:
    assert (tiny.ROOT / "docs" / "settings.md").read_text() == reference(), (
        "run python -m utils.reference > docs/settings.md"
    )


@SCHEMAS
def test_every_setting_has_a_line_that_says_what_it_means(schema: type[TrainSettings | EvalSettings]) -> None:
    found = {line.name: line.meaning for line in lines(schema)}
    groups = {name.rpartition(".")[0] for name in found}
    assert set(found) == set(all_keys(schema)) - groups
    assert all(found.values())


def test_lines_say_what_may_be_set_and_what_is_set() -> None:
    assert line_of(TrainSettings, "batch_size")[1:3] == ("integer (≥ 1)", "`64`")
    assert line_of(TrainSettings, "cache")[1:3] == ("`memory`, `device`, `null`", "`null`")
    assert line_of(TrainSettings, "optim.lr_params.min_lr")[1:3] == ("number (≥ 0)", "`1e-06`")
    assert line_of(TrainSettings, "class_weights").values == "list of number, `uniform`, `weighted`, `null`"
    assert line_of(EvalSettings, "sampling.steps").default == f"`{EvalSettings().sampling.steps}`"
    assert line_of(EvalSettings, "seeds")[1:3] == ("list of integer (≥ 0, < 2^63)", "`[0]`")
