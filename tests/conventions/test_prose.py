"""Docstrings open with a statement: what a module does, and what a function does or returns."""

import ast
import re
from collections.abc import Iterator

import pytest

from tests.support import sources
from tests.support.harness import ROOT

FOLDERS = ("scheduler", "worker", "cli", "migrations", "sdk", "tools", "benchmarks")


def modules(folder: str) -> Iterator[tuple[str, ast.Module]]:
    for path in sorted((ROOT / folder).rglob("*.py")):
        yield str(path.relative_to(ROOT)), sources.tree(path)


def first_sentence(text: str) -> str:
    """Return the text up to its first full stop, question mark or colon, or else its first paragraph."""
    paragraph = " ".join(text.split("\n\n")[0].split())
    return re.split(r"(?<=[.?:])(?:\s|$)", paragraph, maxsplit=1)[0]


LONGEST_UNTOLD = 7
"""Lines of a public function whose name may be all that is said of it."""


def public_functions(tree: ast.AST) -> Iterator[ast.FunctionDef]:
    """Yield functions and methods without an underscore; what is defined inside a function is not public."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield from public_functions(node)
        elif isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            yield node


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_module_opens_with_a_statement(folder: str) -> None:
    wrong: list[str] = []
    for name, tree in modules(folder):
        text = ast.get_docstring(tree)
        if text is None:
            wrong += [f"{name}: no docstring"] if tree.body else []
        elif "?" in first_sentence(text) or text.startswith("TODO"):
            wrong.append(f"{name}: {first_sentence(text)}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("folder", FOLDERS)
def test_no_public_function_or_class_opens_with_a_question(folder: str) -> None:
    wrong: list[str] = []
    for name, tree in modules(folder):
        classes = [
            node for node in tree.body if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
        ]
        for node in (*classes, *public_functions(tree)):
            lines = (ast.get_docstring(node) or "").splitlines()
            if lines and lines[0].rstrip().endswith("?"):
                wrong.append(f"{name}: {node.name}: {lines[0]}")
    assert not wrong, "\n".join(wrong)


def is_told_elsewhere(node: ast.ClassDef) -> bool:
    """Return whether a class is private, or its methods are documented by a base or by the protocol that it names."""
    return (
        node.name.startswith("_")
        or bool(node.bases)
        or (ast.get_docstring(node) or "").startswith("Implements")
    )


@pytest.mark.parametrize("folder", ["scheduler", "worker", "cli", "migrations"])
def test_what_takes_some_lines_is_documented(folder: str) -> None:
    silent: list[str] = []
    for name, tree in modules(folder):
        classes = [
            node for node in tree.body if isinstance(node, ast.ClassDef) and not is_told_elsewhere(node)
        ]
        plain = ast.Module([node for node in tree.body if not isinstance(node, ast.ClassDef)], [])
        for node in (inner for part in (plain, *classes) for inner in public_functions(part)):
            lines = (node.end_lineno or node.lineno) - node.lineno
            if lines > LONGEST_UNTOLD and ast.get_docstring(node) is None:
                silent.append(f"{name}: {node.name}")
    assert not silent, "\n".join(silent)
