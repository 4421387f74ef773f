"""Every module can be imported where there is no POSIX, as on Windows."""

import subprocess
import sys
import tomllib

from tests.tiny import ROOT

WITHOUT_POSIX = """
import importlib, os, signal, sys

names = sys.argv[1:]
ours = {name.partition(".")[0] for name in names}
for name in names:  # once with POSIX, since libraries choose by platform what they import
    importlib.import_module(name)
for name in [name for name in sys.modules if name.partition(".")[0] in ours]:
    del sys.modules[name]
for name in ("fcntl", "grp", "pwd", "resource", "termios"):
    sys.modules[name] = None
for name in ("SIGUSR1", "SIGUSR2", "SIGKILL", "SIGHUP", "SIGALRM", "setitimer", "pthread_sigmask"):
    delattr(signal, name)
for name in ("fork", "sched_getaffinity", "getuid", "geteuid", "killpg", "setsid", "sysconf", "statvfs", "uname"):
    delattr(os, name)
failed = []
for name in names:
    try:
        importlib.import_module(name)
    except (ImportError, AttributeError) as error:
        failed.append(f"{name}: {error}")
sys.exit("; ".join(failed) or 0)
"""


def modules() -> list[str]:
    """Every module that mypy checks, which is all but the tests."""
    names = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["mypy"]["files"]
    files = [path for name in names for path in (sorted((ROOT / name).rglob("*.py")) or [ROOT / name])]
    return [".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for path in files]


def test_every_module_is_imported_without_posix() -> None:
    assert {"ddpm_train", "utils", "training.run_dir"} <= set(modules())
    command = [sys.executable, "-c", WITHOUT_POSIX, *modules()]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")
