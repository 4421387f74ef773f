"""YAML files: what holds no settings is refused, quickly and with its name."""

import re
import time
from pathlib import Path

import pytest

from training.settings import TrainSettings
from utils.errors import UserError
from utils.settings import load_settings

LAUGHS = "\n".join(["a0: &a0 [x]", *(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 30))])
MERGES = "\n".join(
    ["a0: &a0 {x: 1}", *(f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}]}}" for n in range(1, 30))]
)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"\xff\xfe\x00binary", "is not a text file"),
        (b"a: [1, 2", "is not valid YAML"),
        (b"a: !!python/object/apply:os.getcwd []", "is not valid YAML"),
        (b"a: 1\n  b: 2", "is not valid YAML"),
        (b"- a\n- b", r"must hold settings .* it holds \['a', 'b'\]"),
        (b"just words", "it holds 'just words'"),
        (b"", "it holds nothing"),
        (b"recipes: [1]", "`recipes` must map"),
        (b"recipes: {datasets.synthetic: 3}", "`recipes` must map"),
        (b"3: x", "unknown key `3`"),
        (b"seed: !!timestamp x", "is not valid YAML"),
        (b"seed: !!bool x", "is not valid YAML"),
        (b"seed: !!int ''", "is not valid YAML"),
        (b"seed: " + b"9" * 40_000, "is not valid YAML: a number that is too long"),
        (b"seed: " + b"1:" * 20_000 + b"1", "is not valid YAML: a number that is too long"),
        (b"seed: " + b"9" * 100, "`seed` is a number of more than 64 bits"),
        (b"seed: .nan", "`seed` is nan; expected a finite number"),
        (b'output_path: "a\\0b"', r"`output_path` contains the unusable character '\\x00'"),
        (b'output_path: "\\ud800"', r"`output_path` contains the unusable character '\\ud800'"),
        (b"output_path: 2024-01-02", "`output_path` is a date; expected text"),
        (b"dataset_params: {path: !!binary aGk=}", "`dataset_params.path` is a bytes"),
        (b"dataset_params: &a [*a]", "entries or 40 levels"),
        (b"dataset_params: " + b"[" * 30_000, "is not valid YAML: too many levels"),
        (b"- " * 20_000, "is not valid YAML"),
        (LAUGHS.encode(), "is not valid YAML: too many repetitions"),
        (MERGES.encode(), "is not valid YAML: too many repetitions"),
        (b"# " * 60_000, "has more than 50,000 bytes"),
    ],
)
def test_file_that_holds_no_settings_is_refused(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "params.yml"
    path.write_bytes(content)
    start = time.monotonic()
    with pytest.raises(UserError) as error:
        load_settings(TrainSettings, [str(path)], default_file="")
    message = str(error.value)
    assert time.monotonic() - start < 2
    assert re.search(said, message)
    assert "\n\n" not in message
