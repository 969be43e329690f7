"""The folders are the architecture: who may import whom, who may write SQL, and what stays off the path of `run`."""

import ast
import json
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.support import sources
from tests.support.harness import ROOT, Bench, program

MAY_IMPORT = {
    "migrations": set[str](),
    "scheduler": {"migrations"},
    "worker": {"scheduler"},
    "cli": {"scheduler", "worker"},
    "sdk": set[str](),
}
FOLDERS = {*MAY_IMPORT, "tests", "benchmarks", "examples", "tools"}
LAYERS: dict[str, tuple[set[str], ...]] = {
    "scheduler": (
        {"errors", "lifecycle", "faults"},
        {"spec", "config"},
        {"records", "home", "recipes", "outcome", "successive_halving"},
        {"governor", "npm_import"},
        {"store"},
    ),
    "worker": (
        {"supervisor", "probes", "clock", "console", "wakeup", "signals", "user_files", "progress"},
        {"executor"},
        {"context"},
        {"environment", "machine", "checkpoints", "reactions", "takeover"},
        {"segments"},
        {"maintenance"},
        {"admission"},
        {"loop"},
        {"daemon"},
    ),
    "cli": (
        {"context", "exit_codes", "render", "help"},
        {"main"},
        {"options"},
        {"submit", "live"},
        {"doctor", "drill", "report", "mcp_server", "service"},
        {"commands"},
    ),
}
"""Modules and packages of a folder, lowest layer first. Each may import from its own layer one way."""
MOST_MODULES = 18
TOP_ENTRIES = {"scheduler": 13, "worker": 20, "cli": 15}


@cache
def imports(path: Path) -> tuple[tuple[str, bool], ...]:
    """Return every module that `path` imports, inside functions too, and whether it is only for the type checker."""
    return tuple(_imports(path, sources.tree(path)))


def _imports(path: Path, tree: ast.Module) -> Iterator[tuple[str, bool]]:
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


def rooms(folder: str) -> dict[str, set[str]]:
    """Return each module or package directly inside `folder`, with those of the same folder that it imports."""
    found: dict[str, set[str]] = {}
    for path in modules(folder):
        own = path.relative_to(ROOT / folder).with_suffix("").parts[0]
        if own == "__init__":
            continue
        used = found.setdefault(own, set())
        for name, typing_only in imports(path):
            parts = name.split(".")
            if parts[:2] == ["backprop", folder] and len(parts) > 2 and not typing_only:
                used.add(parts[2])
        used.discard(own)
    return found


@pytest.mark.parametrize("folder", LAYERS)
def test_packages_import_only_from_below(folder: str) -> None:
    height = {name: level for level, names in enumerate(LAYERS[folder]) for name in names}
    found = rooms(folder)
    assert set(found) == set(height), "every module and package has its layer"
    for name, used in found.items():
        for other in used & set(height):
            assert height[other] <= height[name], f"{folder}/{name} reaches up to {other}"
            assert name not in found[other] or height[other] < height[name], f"{folder}: {name} and {other}"


@pytest.mark.parametrize("folder", LAYERS)
def test_a_folder_can_be_taken_in_at_a_glance(folder: str) -> None:
    assert len(rooms(folder)) <= TOP_ENTRIES[folder]
    for package in {path.parent for path in modules(folder)} - {ROOT / folder, ROOT / "cli" / "commands"}:
        count = sum(1 for path in package.glob("*.py") if path.name != "__init__.py")
        assert count <= MOST_MODULES, f"{package} has {count} modules"


def test_every_package_is_installed() -> None:
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    there = {
        ".".join(("backprop", *path.relative_to(ROOT).parts))
        for folder in ("scheduler", "worker", "cli", "migrations")
        for path in {path.parent for path in modules(folder)}
    }
    assert set(listed) == there | {"backprop", "backprop.integrations"}


@pytest.mark.parametrize("folder", ["scheduler", "worker", "cli", "sdk", "migrations"])
def test_only_the_store_knows_sql(folder: str) -> None:
    for path in modules(folder):
        if path.is_relative_to(ROOT / "scheduler" / "store") or folder == "migrations":
            continue
        for name, _ in imports(path):
            known = name.split(".")[0]
            # MLflow's own database, in which a run of an earlier segment is looked up.
            allowed = known == "sqlite3" and path.name == "mlflow.py"
            assert allowed or known not in ("peewee", "playhouse", "sqlite3"), f"{path} imports {name}"
            assert not name.startswith("backprop.scheduler.store.schema"), f"{path} knows the tables"


def test_only_the_keys_of_top_need_textual() -> None:
    for folder in MAY_IMPORT:
        for path in modules(folder):
            names = {name.split(".")[0] for name, _ in imports(path)}
            assert "textual" not in names or path.is_relative_to(ROOT / "cli" / "live" / "keys"), path


def test_only_what_draws_needs_rich_and_only_its_command_the_report() -> None:
    drawing = [ROOT / "cli" / "live", ROOT / "cli" / "render" / "tables.py"]
    report = [ROOT / "cli" / "report", ROOT / "cli" / "commands" / "report.py"]
    for folder in MAY_IMPORT:
        for path in modules(folder):
            names = {name for name, _ in imports(path)}
            needs_rich = any(name.split(".")[0] == "rich" for name in names)
            assert not needs_rich or any(map(path.is_relative_to, drawing)), path
            needs_report = any(name.startswith("backprop.cli.report") for name in names)
            assert not needs_report or any(map(path.is_relative_to, report)), path


def test_only_its_server_needs_the_sdk_of_mcp() -> None:
    for folder in MAY_IMPORT:
        for path in modules(folder):
            names = {name.split(".")[0] for name, _ in imports(path)}
            inside = path.is_relative_to(ROOT / "cli" / "mcp_server")
            assert inside or not names & {"mcp", "mcp_types", "anyio"}, path


def outsiders(folder: str) -> dict[str, str]:
    """Return modules of neither the standard library nor ours that a folder imports, and where."""
    known = sys.stdlib_module_names | {path.stem for path in modules(folder)} | {"backprop"}
    return {
        name: str(path)
        for path in modules(folder)
        for name, _ in imports(path)
        if not _within(name, path, ROOT / folder) and name.split(".")[0] not in known
    }


def _within(name: str, path: Path, folder: Path) -> bool:
    """Return whether a relative import of `path` stays in `folder`."""
    dots = len(name) - len(name.lstrip("."))
    return 0 < dots <= len(path.relative_to(folder).parts)


@pytest.mark.parametrize("folder", ["sdk", "worker/supervisor", "worker/executor/vram/mover", "migrations"])
def test_what_must_stay_alone_imports_the_standard_library_only(folder: str) -> None:
    # The mover finds the supervisor's modules by their folder.
    beside = {path.stem for path in modules("worker/supervisor")} if folder.endswith("mover") else set[str]()
    assert not outsiders(folder).keys() - beside


@pytest.mark.parametrize("folder", ["worker/supervisor", "worker/executor/vram/mover"])
def test_programs_of_their_own_run_without_any_package_around_them(folder: str) -> None:
    for path in modules(folder):
        used = {name for name, _ in imports(path) if name.split(".")[0] == "backprop"}
        assert not used, f"{path} imports {used}"


def test_the_rules_read_no_clock_database_or_process() -> None:
    """Pure: what is the same in goes the same out."""
    impure = {"time", "os", "subprocess", "random", "datetime", "signal", "psutil", "socket", "threading"}
    scheduler = ROOT / "scheduler"
    pure = [scheduler / f"{name}.py" for name in ("lifecycle", "spec", "successive_halving")]
    for path in (
        *pure,
        *modules("scheduler/faults"),
        *modules("scheduler/outcome"),
        *modules("scheduler/governor"),
        *modules("scheduler/recipes"),
    ):
        names = {name for name, _ in imports(path)}
        used = {name.split(".")[0] for name in names}
        assert not used & impure, f"{path} imports {used & impure}"
        assert "pathlib.Path" not in names, f"{path}: PurePath does the arithmetic and opens nothing"


def loaded_by(bench: Bench, *words: str) -> set[str]:
    """Return the modules that a command has loaded when it ends."""
    done = subprocess.run(
        [*program("loaded_modules"), *words],
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
    assert not again & (
        HEAVY | {"filelock", "tomllib", "ctypes", "dataclasses", "backprop.scheduler.store.schema"}
    ), "the home is there and up to date"
    assert "backprop.worker.loop" not in again


def test_a_worker_and_a_supervisor_start_without_dataclasses() -> None:
    """To define one takes 0.6 ms, fifty times what a msgspec.Struct takes, and the worker has a hundred records. Their
    module loads `inspect`, which is a fifth of a supervisor's start."""
    code = (
        "import sys; import backprop.worker.daemon; print(sorted(name for module in list(sys.modules.values())"
        " if module.__name__.startswith('backprop.') for name, found in vars(module).items()"
        " if '__dataclass_fields__' in vars(found if isinstance(found, type) else object)"
        " and found.__module__ == module.__name__))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ast.literal_eval(done.stdout) == ["Absence", "Context"], (
        "with a field of which a struct knows nothing"
    )
    command = [sys.executable, "-I", "-S", "-X", "importtime", str(ROOT / "worker" / "supervisor"), "--help"]
    loaded = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    assert "process_tree" in loaded and not {"dataclasses", "inspect"} & set(loaded.split())


@pytest.mark.parametrize("words", [["list", "--json"], ["config", "--json"], ["logs", "train"]])
def test_what_prints_no_table_loads_no_rich(bench: Bench, words: list[str]) -> None:
    bench.script("train.py", "print(1)")
    bench.queue("train.py")
    assert not loaded_by(bench, *words) & HEAVY


def test_what_looks_at_the_queue_and_what_works_it_off_load_no_picture(bench: Bench) -> None:
    bench.script("train.py", "print(1)")
    bench.queue("train.py")
    for words in (
        ["worker", "--drain", "--gpu-probe", "none"],
        ["status", "--json"],
        ["show", "train", "--json"],
    ):
        drawn = {name for name in loaded_by(bench, *words) if name.split(".")[0] in ("rich", "textual")}
        assert drawn == set(), words
    for words in (["list"], ["status"], ["top", "--once"]):
        loaded = loaded_by(bench, *words)
        assert not {name for name in loaded if name.startswith(("textual", "backprop.cli.report"))}, words


def test_the_sdk_loads_next_to_nothing() -> None:
    code = "import sys; before = set(sys.modules); import backprop; print(sorted(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(ast.literal_eval(done.stdout))
    assert not {name for name in loaded if name.startswith("backprop.")} - {
        f"backprop.{path.stem}" for path in modules("sdk")
    }
    assert not loaded & (HEAVY | {"msgspec", "click", "peewee", "sqlite3", "socket", "subprocess"})
