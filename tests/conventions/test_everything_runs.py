"""Every module of the repository can be imported, and every program prints its help without doing its work.

Code that is run seldom (a benchmark, a storm, the recorder of a fixture) would rot unseen otherwise.
"""

import ast
import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Collection, Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from tests.support import sources
from tests.support.harness import ROOT, program

PACKAGES = {
    "sdk": "backprop",
    "scheduler": "backprop.scheduler",
    "worker": "backprop.worker",
    "cli": "backprop.cli",
    "migrations": "backprop.migrations",
    "benchmarks": "benchmarks",
    "tools": "tools",
    "tests": "tests",
}
"""Each folder that holds our modules, and the package that it is imported as."""
SUPERVISOR = ROOT / "worker" / "supervisor"
MOVER = ROOT / "worker" / "executor" / "vram" / "mover"
ALONE = (SUPERVISOR, MOVER)
"""Programs whose modules import one another without a package."""
STUB_TORCH = ROOT / "tests" / "support" / "stub_torch"
SCRIPTS = (
    "examples",
    "tests/support/scripts",
    "tests/support/programs",
    "tests/frameworks/scripts",
    "tests/trainers/scripts",
    "tests/trainers/scripts",
    "tests/fixtures/home_0_1_0/train.py",
    "tests/support/fakes/allocate.py",
    "tests/faults/sweep/driver.py",
    "benchmarks/gpu/trainer.py",
    "benchmarks/gpu/turner.py",
)
"""Programs that do their work when they are imported, or import what lies beside them: they are only compiled."""
FRAMEWORKS = {
    "keras": "keras",
    "_keras_exact": "keras",
    "lightning": "lightning",
    "transformers": "transformers",
}
"""Integrations, and the module of the user's that each needs."""
KEYS = ("app", "live", "panes")
"""Modules of `cli/live/keys` that need textual."""
SERVER = {"asking": "anyio", "server": "anyio"}
"""Modules of `cli/mcp_server` that need its SDK, and what they miss first."""


def files(folder: str) -> list[Path]:
    return sorted(path for path in (ROOT / folder).rglob("*.py") if not path.is_relative_to(STUB_TORCH))


def is_script(path: Path) -> bool:
    return any(path.is_relative_to(ROOT / script) for script in SCRIPTS)


def module_name(folder: str, path: Path) -> str:
    parts = path.relative_to(ROOT / folder).with_suffix("").parts
    return ".".join((PACKAGES[folder], *(part for part in parts if part != "__init__")))


def to_import(folder: str) -> list[Path]:
    """Return the modules of a folder. Left out: those of programs that stand alone, and test files, which pytest
    imports."""
    return [
        path
        for path in files(folder)
        if not is_script(path)
        and (path.parent not in ALONE or path.name == "__init__.py")
        and not path.name.startswith(("test_", "conftest"))
    ]


def environment(folder: Path) -> dict[str, str]:
    """Return an environment with a home in `folder`, and the repository and the stub of PyTorch on the path."""
    return {name: value for name, value in os.environ.items() if not name.startswith("BACKPROP_")} | {
        "BACKPROP_HOME": str(folder / "home"),
        "PYTHONPATH": f"{ROOT}:{STUB_TORCH}",
        "COLUMNS": "100",
    }


def run_by_an_import(body: list[ast.stmt]) -> Iterator[ast.Import | ast.ImportFrom]:
    """Yield the imports that run when a module is imported: not those of its functions, nor those for types alone."""
    for node in body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            yield from run_by_an_import(node.orelse)
        elif not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield from run_by_an_import(inner(node))


def inner(node: ast.stmt) -> list[ast.stmt]:
    """Return the statements right below a compound one."""
    parts = [node, *getattr(node, "handlers", [])]
    return [
        one for part in parts for name in ("body", "orelse", "finalbody") for one in getattr(part, name, [])
    ]


def needs(name: str, path: Path, known: Collection[str]) -> set[str]:
    """Return which of the `known` modules are imported before `name` is. An import of a module is one of its packages
    too, apart from those that it shares with the module that imports it."""
    found: set[str] = set()
    for node in run_by_an_import(sources.tree(path).body):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif node.module is not None and node.level == 0:
            found |= {
                f"{node.module}.{alias.name}" if f"{node.module}.{alias.name}" in known else node.module
                for alias in node.names
            }
    packages = {above for one in found for above in packages_of(one)} - packages_of(name)
    return (found | packages) & set(known)


def packages_of(name: str) -> set[str]:
    parts = name.split(".")
    return {".".join(parts[:count]) for count in range(1, len(parts))}


def test_no_import_goes_round_in_a_circle() -> None:
    """So any module can be imported first."""
    paths = {module_name(folder, path): path for folder in PACKAGES for path in to_import(folder)}
    TopologicalSorter({name: needs(name, path, paths) for name, path in paths.items()}).prepare()


@pytest.mark.parametrize("folder", PACKAGES)
def test_every_module_can_be_imported(folder: str, tmp_path: Path) -> None:
    (tmp_path / "cwd").mkdir()
    done = subprocess.run(
        [*program("import_each"), *(module_name(folder, path) for path in to_import(folder))],
        env=environment(tmp_path),
        cwd=tmp_path / "cwd",
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    failures = json.loads(done.stdout.splitlines()[-1])
    for integration, framework in FRAMEWORKS.items():
        if importlib.util.find_spec(framework) is None and folder == "sdk":
            reason = failures.pop(f"backprop.integrations.{integration}")
            assert "this callback needs" in reason and "pip install" in reason, reason
    for name in KEYS if folder == "cli" and importlib.util.find_spec("textual") is None else ():
        assert "No module named 'textual'" in failures.pop(f"backprop.cli.live.keys.{name}")
    for name, missed in SERVER.items() if folder == "cli" and importlib.util.find_spec("mcp") is None else ():
        assert f"No module named '{missed}'" in failures.pop(f"backprop.cli.mcp_server.{name}")
    assert failures == {}
    assert list((tmp_path / "cwd").iterdir()) == [], "imported modules have written files"


@pytest.mark.parametrize("folder", ALONE)
def test_every_module_of_a_program_of_its_own_can_be_imported_alone(folder: Path) -> None:
    for path in sorted(folder.glob("*.py")):
        if path.stem not in ("__init__", "__main__"):
            code = f"import sys; sys.path[:0] = [{str(folder)!r}, {str(SUPERVISOR)!r}]; import {path.stem}"
            done = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True)
            assert done.returncode == 0, f"{path.stem}: {done.stderr}"


def test_every_script_compiles() -> None:
    for script in SCRIPTS:
        paths = [ROOT / script] if script.endswith(".py") else files(script)
        assert paths, f"nothing in {script}"
        for path in paths:
            compile(path.read_text(), str(path), "exec")


def starts_when_run(path: Path) -> bool:
    """Return whether it is a program: `__main__.py`, or one with `if __name__ == "__main__"`."""
    text = path.read_text()
    return path.name == "__main__.py" or (
        "__name__" in text  # to parse every file would take each worker of the suite a second
        and any(
            isinstance(node, ast.If) and "__name__" in ast.unparse(node.test) for node in ast.parse(text).body
        )
    )


def programs() -> list[Path]:
    """Return every program of ours. What is written as users write runs in the tests that it lies beside."""
    found = [path for folder in (*PACKAGES, "examples") for path in files(folder) if starts_when_run(path)]
    users = [ROOT / "tests" / name / "scripts" for name in ("frameworks", "trainers")]
    return [path for path in found if not any(path.is_relative_to(folder) for folder in users)]


def command(path: Path) -> list[str]:
    """Return how a program is started: by its folder, by its path, or as a module."""
    if path.parent in ALONE:
        return [sys.executable, "-I", "-S", str(path.parent)]
    if is_script(path):
        return [sys.executable, str(path)]
    name = module_name(path.relative_to(ROOT).parts[0], path).removesuffix(".__main__")
    return [sys.executable, "-m", name]


@pytest.mark.parametrize("path", programs(), ids=lambda path: str(path.relative_to(ROOT)))
def test_every_program_has_help_that_does_nothing_else(path: Path, tmp_path: Path) -> None:
    (tmp_path / "cwd").mkdir()
    done = subprocess.run(
        [*command(path), "--help"],
        env=environment(tmp_path),
        cwd=tmp_path / "cwd",
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("usage: "), done.stdout
    assert done.stderr == ""
    assert list(tmp_path.iterdir()) == [tmp_path / "cwd"], "it has made a home"
    assert list((tmp_path / "cwd").iterdir()) == [], "it has written files"
