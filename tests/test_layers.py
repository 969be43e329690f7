"""The folders are the architecture: who may import whom, who may write SQL, and what stays off the path of `run`."""

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness import Bench

ROOT = Path(__file__).parent.parent
MAY_IMPORT = {
    "migrations": set[str](),
    "scheduler": {"migrations"},
    "worker": {"scheduler"},
    "cli": {"scheduler", "worker"},
    "sdk": set[str](),
}
FOLDERS = {*MAY_IMPORT, "tests", "benchmarks", "examples"}
WRITES_SQL = {
    f"{name}.py"
    for name in (
        *("proxy", "models", "database", "patience", "examine", "rebuild", "statements", "moves", "newruns"),
        *("queue", "claims", "foreign", "dependencies", "groups", "housekeeping", "bulk", "order"),
        *("reads", "selection", "watchbook", "metrics", "reported", "switches", "mlflow_runs"),
    )
}


def imports(path: Path) -> Iterator[tuple[str, bool]]:
    """Every module `path` imports, inside functions too, and whether it is only for the type checker."""
    tree = ast.parse(path.read_text())
    typing_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, id(node) in typing_only
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 or path.is_relative_to(ROOT / "sdk"), f"{path}: a relative import"
            module = ("." * node.level) + (node.module or "")
            yield module, id(node) in typing_only
            for alias in node.names:
                inner = f"{module}{alias.name}" if module.endswith(".") else f"{module}.{alias.name}"
                yield inner, id(node) in typing_only


def modules(folder: str) -> list[Path]:
    found = sorted((ROOT / folder).rglob("*.py"))
    assert found, folder
    return found


@pytest.mark.parametrize("folder", MAY_IMPORT)
def test_imports_go_one_way(folder: str) -> None:
    allowed = MAY_IMPORT[folder] | {folder}
    for path in modules(folder):
        for name, _ in imports(path):
            parts = name.split(".")
            if parts[0] == "backprop" and len(parts) > 1:
                assert parts[1] in allowed, f"{path} reaches up into {name}"


@pytest.mark.parametrize("folder", sorted(FOLDERS - {"benchmarks"}))
def test_nothing_imports_a_bare_folder(folder: str) -> None:
    """From the repository's root that works, and loads a second copy of the module."""
    bare = set(MAY_IMPORT)
    for path in modules(folder):
        for name, _ in imports(path):
            assert name.split(".")[0] not in bare, f"{path} imports {name}: say backprop.{name}"


@pytest.mark.parametrize("folder", ["scheduler", "worker", "cli", "sdk", "migrations"])
def test_only_the_store_knows_peewee(folder: str) -> None:
    for path in modules(folder):
        if folder == "scheduler" and path.name in WRITES_SQL:
            continue
        for name, _ in imports(path):
            assert name.split(".")[0] not in ("peewee", "playhouse", "sqlite3"), f"{path} imports {name}"
            assert "models" not in name.split("."), f"{path} knows the tables"


def outsiders(folder: str) -> dict[str, str]:
    """Modules of neither the standard library nor ours that a folder imports, and where."""
    known = sys.stdlib_module_names | {path.stem for path in modules(folder)} | {"backprop"}
    return {
        name: str(path)
        for path in modules(folder)
        for name, _ in imports(path)
        if not _within(name, path, ROOT / folder) and name.split(".")[0] not in known
    }


def _within(name: str, path: Path, folder: Path) -> bool:
    """Whether a relative import of `path` stays in `folder`."""
    dots = len(name) - len(name.lstrip("."))
    return 0 < dots <= len(path.relative_to(folder).parts)


@pytest.mark.parametrize("folder", ["sdk", "worker/supervisor", "migrations"])
def test_what_must_stay_alone_imports_the_standard_library_only(folder: str) -> None:
    assert outsiders(folder) == {}


def test_the_supervisor_runs_without_any_package_around_it() -> None:
    for path in modules("worker/supervisor"):
        used = {name for name, _ in imports(path) if name.split(".")[0] == "backprop"}
        assert not used, f"{path} imports {used}"


def test_the_rules_read_no_clock_database_or_process() -> None:
    """Pure: what is the same in goes the same out."""
    impure = {"time", "os", "subprocess", "random", "datetime", "signal", "psutil", "socket", "threading"}
    pure = ("lifecycle", "outcome", "governor", "placement", "rules", "vram", "watch", "snapshot", "spec")
    for name in pure:
        path = ROOT / "scheduler" / f"{name}.py"
        used = {module.split(".")[0] for module, _ in imports(path)}
        assert not used & impure, f"{path} imports {used & impure}"


WATCHED = """
import json, sys
from backprop.cli.main import run_command
code = run_command(sys.argv[1:])
print(json.dumps([code, sorted(sys.modules)]))
"""


def loaded_by(bench: Bench, *words: str) -> set[str]:
    """The modules a command has loaded when it ends."""
    done = subprocess.run(
        [sys.executable, "-c", WATCHED, *words],
        capture_output=True,
        text=True,
        env=bench.environment,
        cwd=bench.project,
        check=True,
    )
    code, names = json.loads(done.stdout.splitlines()[-1])
    assert code == 0, done.stderr
    return set(names)


HEAVY = {
    "psutil",
    "pynvml",
    "rich",
    "asyncio",
    "ssl",
    "http",
    "multiprocessing",
    "unittest",
    "importlib.metadata",
}


def test_run_loads_nothing_heavy(bench: Bench) -> None:
    bench.script("train.py", "print(1)")
    first = loaded_by(bench, "run", "train.py")
    assert not first & HEAVY
    again = loaded_by(bench, "run", "train.py")
    assert not again & (HEAVY | {"filelock", "tomllib", "ctypes", "backprop.scheduler.store.schema"}), (
        "the home is there and up to date"
    )
    assert "backprop.worker.loop" not in again


@pytest.mark.parametrize("words", [["list", "--json"], ["config", "--json"], ["logs", "train"]])
def test_what_prints_no_table_loads_no_rich(bench: Bench, words: list[str]) -> None:
    bench.script("train.py", "print(1)")
    bench.queue("train.py")
    assert not loaded_by(bench, *words) & HEAVY


def test_the_sdk_loads_next_to_nothing() -> None:
    code = "import sys; before = set(sys.modules); import backprop; print(sorted(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(ast.literal_eval(done.stdout))
    assert not {name for name in loaded if name.startswith("backprop.")} - {
        f"backprop.{path.stem}" for path in modules("sdk")
    }
    assert not loaded & (HEAVY | {"msgspec", "click", "peewee", "sqlite3", "socket", "subprocess"})
