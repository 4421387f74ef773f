"""Comparing settings over seeds."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks import ablation
from benchmarks.ablation import Run, table
from checkpoints.files import load_checkpoint
from tests import tiny
from utils.errors import UserError


def scores(*ged: float) -> Run:
    return Run(np.array([ged, [1 - value for value in ged]]), minutes=2.0)


def test_table_has_means_over_seeds_and_paired_differences() -> None:
    lines = table({"first": [scores(0.2, 0.4), scores(0.4, 0.6)], "better": [scores(0.1, 0.3), scores(0.3, 0.5)]})
    first, better = lines.splitlines()[2:]
    assert first.startswith("| first | 0.4000 ± 0.1414 | 0.6000 ± 0.1414 | +0.0000 [+0.0000, +0.0000] |")
    assert "| better | 0.3000 ± 0.1414 |" in better
    assert "| -0.1000 [-0.1000, -0.1000] | +0.1000 [+0.1000, +0.1000] | 2.0 |" in better


def test_variants_are_trained_once_and_compared(
    data_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    variants = tmp_path / "variants.yml"
    variants.write_text("raters: [loss.raters=all]\n")
    changes = [change for change in tiny.train_argv(data_folder, tmp_path)[1:] if not change.startswith("output_path")]
    argv = [str(variants), "--seeds", "1", "--out", str(tmp_path / "runs"), "--settings", *changes]
    ablation.main(argv)
    printed = capsys.readouterr().out
    assert {path.name for path in (tmp_path / "runs").iterdir()} == {"raters_1"}
    settings = load_checkpoint(tmp_path / "runs" / "raters_1" / "last.pt")["settings"]
    assert (settings["seed"], settings["loss"]["raters"]) == (1, "all")
    monkeypatch.setattr(ablation, "_script", None)  # nothing is run again
    ablation.main(argv)
    assert capsys.readouterr().out.splitlines()[-3:] == printed.splitlines()[-3:]


def test_failing_run_ends_the_comparison_with_its_message(tmp_path: Path) -> None:
    variants = tmp_path / "variants.yml"
    variants.write_text("wrong: [loss.raters=some]\n")
    with pytest.raises(UserError, match=r"loss\.raters"):
        ablation.main([str(variants), "--out", str(tmp_path / "runs")])


def test_variant_that_is_not_a_list_is_refused(tmp_path: Path) -> None:
    variants = tmp_path / "variants.yml"
    variants.write_text("wrong: loss.raters=all\n")
    with pytest.raises(UserError, match="wrong must be a list of key=value texts"):
        ablation.main([str(variants)])
