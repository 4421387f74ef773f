"""The architecture, checked in the source: dependencies point one way, files are short, public names documented."""

import ast
import graphlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.tiny import ROOT

SCRIPTS = ("ddpm_train", "ddpm_eval", "ddpm_predict")
LEVELS = {
    "utils": 0, "metrics": 0, "diffusion": 1, "datasets": 1, "models": 2, "checkpoints": 3, "evaluation": 4,
    "prediction": 5, "training": 5, "benchmarks": 6, "docs": 6, **dict.fromkeys(SCRIPTS, 7),
}  # fmt: skip
"""A package may import packages of lower levels only."""

PURE = ("models", "diffusion")
"""Packages that read no files and know no settings."""
NOT_IN_PURE = {"h5py", "yaml", "datasets", "checkpoints", "utils.settings", "utils.paths"}

MOST_LINES = 300
LONGER: dict[str, str] = {}
"""Files that are longer, with the reason."""


def sources(folder: str = ".") -> list[Path]:
    """The Python files of the project, without hidden folders and virtual environments."""
    paths = (path.relative_to(ROOT) for path in (ROOT / folder).rglob("*.py"))
    hidden = {path.parent.relative_to(ROOT).parts[0] for path in ROOT.glob("*/pyvenv.cfg")}
    return sorted(path for path in paths if path.parts[0] not in hidden and not path.parts[0].startswith("."))


PRODUCT = [path for path in sources() if path.parts[0].removesuffix(".py") in LEVELS]
MODULES = {".".join(path.with_suffix("").parts).removesuffix(".__init__"): path for path in PRODUCT}


def parse(path: Path) -> ast.Module:
    return ast.parse((ROOT / path).read_text(encoding="utf-8"))


def imports(path: Path) -> set[str]:
    """The dotted names of all modules that a file imports, inside functions, too."""
    found = set()
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import"
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in MODULES else str(node.module) for name in names}
    return found


def is_below(name: str, parents: set[str]) -> bool:
    """Whether a module is one of the parents or inside one."""
    return any(f"{name}.".startswith(f"{parent}.") for parent in parents)


@pytest.mark.parametrize("package", LEVELS)
def test_imports_point_downwards(package: str) -> None:
    paths = [path for path in PRODUCT if path.parts[0].removesuffix(".py") == package]
    assert paths
    for path in paths:
        for name in imports(path):
            other = name.partition(".")[0]
            if other in LEVELS and other != package:
                assert LEVELS[other] < LEVELS[package], f"{path} imports {name}"


@pytest.mark.parametrize("package", PURE)
def test_models_and_diffusion_read_no_files_and_know_no_settings(package: str) -> None:
    for path in sources(package):
        assert not [name for name in imports(path) if is_below(name, NOT_IN_PURE)], path


def test_there_are_no_cycles() -> None:
    graph = {module: imports(path) & MODULES.keys() - {module} for module, path in MODULES.items()}
    graphlib.TopologicalSorter(graph).prepare()


def test_files_are_short() -> None:
    lengths = {path.as_posix(): len((ROOT / path).read_text(encoding="utf-8").splitlines()) for path in sources()}
    assert {name for name, length in lengths.items() if length > MOST_LINES} == LONGER.keys()


def undocumented(node: ast.Module | ast.ClassDef, prefix: str) -> Iterator[str]:
    """Public classes, functions and methods without a docstring; that of a layer's class describes its `forward`."""
    for child in node.body:
        if isinstance(child, ast.ClassDef | ast.FunctionDef) and not child.name.startswith("_"):
            if ast.get_docstring(child) is None and child.name not in ("forward", "backward"):
                yield f"{prefix}.{child.name}"
            if isinstance(child, ast.ClassDef):
                yield from undocumented(child, f"{prefix}.{child.name}")


def test_public_names_are_documented() -> None:
    modules = {module: parse(path) for module, path in MODULES.items()}
    assert not [module for module, tree in modules.items() if tree.body and ast.get_docstring(tree) is None]
    assert not [name for module, tree in modules.items() for name in undocumented(tree, module)]
