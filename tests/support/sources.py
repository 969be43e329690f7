"""Parses modules, each once in a process: a dozen tests read the source of the product, which takes two seconds."""

import ast
from functools import cache
from pathlib import Path


@cache
def tree(path: Path) -> ast.Module:
    """Return the syntax tree of a module, which nobody may change."""
    return ast.parse(path.read_text())
