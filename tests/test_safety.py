"""Nothing that is read is executed: no unpickling, no evaluation of text, no shell, no import by a name in a file."""

import ast

import pytest

from tests.tiny import ROOT

SOURCES = sorted(path for path in ROOT.rglob("*.py") if not {"tests", ".venv"} & set(path.relative_to(ROOT).parts))
FORBIDDEN = {
    "eval", "exec", "compile", "pickle.load", "pickle.loads", "pickle.Unpickler", "yaml.load", "yaml.unsafe_load",
    "yaml.full_load", "os.system", "os.popen", "subprocess.getoutput", "marshal.loads", "shelve.open", "joblib.load",
    "__import__",
}  # fmt: skip
IMPORTERS = {"utils/modules.py"}
"""They import what settings name; `models.build.refuse_untrusted` is for names in checkpoints."""


def objections(source: str, path: str = "") -> list[str]:
    """The calls in a file that execute what they read."""
    found = []
    for call in (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)):
        name, options = ast.unparse(call.func), {option.arg: ast.unparse(option.value) for option in call.keywords}
        if (
            name in FORBIDDEN
            or (name == "torch.load" and options.get("weights_only") != "True")
            or (name in ("np.load", "numpy.load") and options.get("allow_pickle", "False") != "False")
            or (name == "importlib.import_module" and path not in IMPORTERS)
            or options.get("shell", "False") != "False"
        ):
            found.append(ast.unparse(call))
    return found


def test_no_file_executes_what_it_reads() -> None:
    names = {path.relative_to(ROOT).as_posix(): path for path in SOURCES}
    assert names.keys() >= {"ddpm_train.py", "checkpoints/files.py", "datasets/preparation/pickles.py", *IMPORTERS}
    assert {name: found for name, path in names.items() if (found := objections(path.read_text("utf-8"), name))} == {}


@pytest.mark.parametrize(
    "source",
    [
        "eval(text)", "torch.load(path)", "torch.load(path, weights_only=False)", "pickle.load(file)",
        "yaml.load(text, Loader=yaml.Loader)", "subprocess.run(text, shell=True)", "np.load(path, allow_pickle=True)",
        "importlib.import_module(name)",
    ],
)  # fmt: skip
def test_calls_that_execute_what_they_read_are_found(source: str) -> None:
    assert objections(source) == [source]
