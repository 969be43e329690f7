"""Tells from files which modules that a script imports at its top the Python that will run it does not have.

Nothing is executed: a script that fails at its first line is told while somebody is there. A false alarm would cost
more than none, so only the certain case counts: an import of its own outside any block, and an installation in which
every place that Python would look is known. Whatever else may add places to `sys.path` makes the answer "none missing".
"""

import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final

from backprop.worker.environment.installed_packages import (
    interpreter_of,
    package_folders,
    standard_folders,
    text_of,
    venv_of,
)

SCRIPT_BYTES: Final = 1 << 20
_IMPORT: Final = re.compile(
    r"^(?:import[ \t]{1,8}(?P<names>[\w., \t]{1,1000})"
    r"|from[ \t]{1,8}(?P<module>\w{1,200})(?:\.[\w.]{0,200})?[ \t]{1,8}import\b)",
    re.MULTILINE,
)
_ADDS_PLACES: Final = re.compile(r"\bsys\.path\b|\baddsitedir\b|\bmeta_path\b|\bpip['\", ]{1,4}install\b")
_HARMLESS: Final = re.compile(
    r"(?:distutils-precedence|_virtualenv|.*-nspkg|a1_coverage|coverage|pytest-cov)\.pth"
)
"""Files that run code at the start of Python and add no place to look in."""
_FINDER: Final = re.compile(r"import (__editable___\w+)")


class Unclear(Exception):
    """A place in which Python would look is not known."""


def lacking(script: Path, program: str, cwd: Path, environment: Mapping[str, str]) -> tuple[str, ...]:
    """Return the top-level modules that `script` imports and the Python behind `program` cannot find, in their order.

    Raises nothing: what is not certain is not missing.
    """
    try:
        text = text_of(script, SCRIPT_BYTES)
        names = [name for name in imported(text) if name not in sys.stdlib_module_names]
        python = interpreter_of(program, environment) if names else None
        if python is None or environment.get("PYTHONHOME") or _ADDS_PLACES.search(text):
            return ()
        present = _present(list(_places(python, script, cwd, environment)), names)
        missing = [name for name in names if name not in present]
        return tuple(name for name in missing if name in _outside_blocks(text)) if missing else ()
    except (OSError, RuntimeError, ValueError, Unclear):
        return ()


def imported(text: str) -> list[str]:
    """Return the first parts of the modules that lines without indentation import, each once."""
    names: dict[str, None] = {}
    for match in _IMPORT.finditer(text):
        listed = [match["module"]] if match["module"] else match["names"].split(",")
        names.update(dict.fromkeys(words[0].partition(".")[0] for each in listed if (words := each.split())))
    return list(names)


def is_own(program: str) -> bool:
    """Return whether this Python is that of Backprop's own environment. Raises OSError."""
    python = Path(program)
    venv = venv_of(python)
    return (venv or python.resolve().parent.parent).resolve() == Path(sys.prefix).resolve()


def _places(python: Path, script: Path, cwd: Path, environment: Mapping[str, str]) -> Iterator[Path]:
    """Yield the folders in which this Python looks for modules. Raises OSError, Unclear."""
    standard = standard_folders(python)
    if not standard:
        raise Unclear
    yield from standard
    yield from (folder / "lib-dynload" for folder in standard)
    yield from (script.parent, cwd)
    yield from (cwd / entry for entry in environment.get("PYTHONPATH", "").split(os.pathsep))
    yield from package_folders(python, environment)


def _present(places: Iterable[Path], names: list[str]) -> set[str]:
    """Return those of `names` that lie in one of the folders, or in one that their .pth files name."""
    present: set[str] = set()
    pending, seen = list(places), set[Path]()
    while pending:
        folder = pending.pop()
        if folder in seen:
            continue
        seen.add(folder)
        try:
            entries = set(os.listdir(folder))  # noqa: PTH208 - names alone
        except (FileNotFoundError, NotADirectoryError):
            continue
        heads = {entry.partition(".")[0] for entry in entries if entry.endswith((".py", ".so", ".pyc"))}
        present |= {name for name in names if name in entries or name in heads}
        if not folder.name.endswith("-packages"):
            continue
        if "sitecustomize.py" in entries or "usercustomize.py" in entries:
            raise Unclear
        for entry in entries:
            if entry.endswith(".pth") and not _HARMLESS.fullmatch(entry):
                pending += _named_by(folder, text_of(folder / entry), names, present)
    return present


def _named_by(folder: Path, text: str, names: list[str], present: set[str]) -> list[Path]:
    """Return the folders that a .pth file adds; put what its finder of editable installs names into `present`."""
    added: list[Path] = []
    for line in text.splitlines():
        if not line.startswith(("import ", "import\t")):
            added += [folder / line.strip()] if line.strip() and not line.startswith("#") else []
            continue
        finder = _FINDER.match(line)
        mapping = text_of(folder / f"{finder[1]}.py") if finder is not None else ""
        if not mapping:
            raise Unclear
        present |= {name for name in names if f"'{name}'" in mapping or f'"{name}"' in mapping}
    if any(path.is_file() for path in added):  # a zip, an egg
        raise Unclear
    return added


def _outside_blocks(text: str) -> set[str]:
    """Return what is imported outside any block and any string, by the syntax tree."""
    import ast

    from backprop.scheduler.recipes.syntax_tree import parse_tree

    names: set[str] = set()
    for node in parse_tree(text.encode(errors="surrogateescape")).body:
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.partition(".")[0])
    return names
