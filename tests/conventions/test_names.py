"""One class per name, and test files that are read alone: what several share lives in tests/support."""

import ast
from collections import defaultdict
from pathlib import Path

from tests.support import sources
from tests.support.harness import ROOT

SHARED = (
    "tests.support",
    "tests.faults.storm",
    "tests.faults.sweep",
    "tests.fixtures",
    "tests.frameworks.chain",
    "tests.trainers.shapes",
)
"""What tests may import of tests: support, and the programs that have tests of their own."""


def parsed(*folders: str) -> dict[Path, ast.Module]:
    paths = sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))
    return {path.relative_to(ROOT): sources.tree(path) for path in paths}


def test_no_two_public_classes_share_a_name() -> None:
    """Those of `sdk` are named as the frameworks' users know them."""
    owners: defaultdict[str, list[str]] = defaultdict(list)
    for path, tree in parsed("scheduler", "worker", "cli", "migrations").items():
        for node in tree.body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                owners[node.name].append(str(path))
    twice = {name: paths for name, paths in owners.items() if len(paths) > 1}
    assert twice == {}


def test_no_test_file_helps_another() -> None:
    for path, tree in parsed("tests").items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
                names += (
                    [f"{node.module}.{alias.name}" for alias in node.names] if node.module == "tests" else []
                )
            elif isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            else:
                continue
            for name in names:
                if name.startswith("tests."):
                    assert name.startswith(SHARED), (
                        f"{path} imports {name}: move what it needs to tests/support"
                    )


def test_every_test_file_lies_in_a_folder_for_its_kind() -> None:
    folders = {path.relative_to(ROOT / "tests").parts[0] for path in (ROOT / "tests").rglob("test_*.py")}
    assert folders == {
        "unit",
        "store",
        "process",
        "commands",
        "end_to_end",
        "faults",
        "frameworks",
        "trainers",
        "slurm",
        "conventions",
    }
