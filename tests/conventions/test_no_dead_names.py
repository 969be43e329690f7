"""Every public name of the product has a caller in the product; tests alone keep nothing alive.

A name of a module counts as used where it is imported from there and named, or read from the imported module. A method,
a member of an enum and an attribute count where any attribute of that name is read, since types are not known here.
The public API of `import backprop` is exempt, and so is what a base class outside the product calls.
"""

import ast
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from tests.support import sources
from tests.support.harness import ROOT

FOLDERS = ("scheduler", "worker", "cli", "migrations")
READERS = (*FOLDERS, "sdk", "tools")
"""Where a use may stand. `tools` makes pages of the docs from tables that hold them."""
SUPERVISOR = "backprop.worker.supervisor"
MOVER = "backprop.worker.executor.vram.mover"
EXCEPTIONS = {
    "cli.mcp_server.one_command.run_command_line": "the text of a program names it",
    "scheduler.store.schema.ClockStep": "as Switch; `samples` has SQL text",
    "scheduler.store.schema.KnownRequest": "as Switch; `requests` has SQL text",
    "scheduler.store.schema.Sample": "as Switch; `samples` has SQL text",
    "scheduler.store.schema.Switch": "a test compares it with the table that the migrations make; `drain` has SQL text",
}
"""Each with why it stays."""

Name = tuple[str, str]
"""A module, and a public name or `Class.method` in it."""


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    top = ("backprop",) if parts[0] == "sdk" else () if parts[0] == "tools" else ("backprop", parts[0])
    return ".".join((*top, *(part for part in parts[1:] if part != "__init__")))


def trees() -> dict[str, ast.Module]:
    paths = sorted(path for folder in READERS for path in (ROOT / folder).rglob("*.py"))
    return {module_of(path): sources.tree(path) for path in paths}


def is_public(name: str) -> bool:
    return not name.startswith("_")


def definitions(module: str, tree: ast.Module) -> Iterator[tuple[Name, ast.stmt]]:
    """Yield public functions, classes, constants and methods, each with the statement that defines it. Left out: click
    commands, which the lazy group imports by their file's name, and methods that override one of a base elsewhere."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and is_public(node.name):
            if not any("command" in ast.unparse(decorator) for decorator in node.decorator_list):
                yield (module, node.name), node
        elif isinstance(node, ast.ClassDef) and is_public(node.name):
            yield (module, node.name), node
            if not overrides(node):
                yield from members(module, node)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            for target in node.targets if isinstance(node, ast.Assign) else (node.target,):
                if isinstance(target, ast.Name) and is_public(target.id):
                    yield (module, target.id), node


def members(module: str, node: ast.ClassDef) -> Iterator[tuple[Name, ast.stmt]]:
    """Yield the public methods of a class, its members if it is an enum, and the attributes that it sets on itself."""
    is_enum = any(ast.unparse(base).endswith("Enum") for base in node.bases)
    for statement in node.body:
        if isinstance(statement, ast.FunctionDef) and is_public(statement.name):
            yield (module, f"{node.name}.{statement.name}"), statement
        elif isinstance(statement, ast.Assign) and is_enum:
            yield (module, f"{node.name}.{ast.unparse(statement.targets[0])}"), statement
    for target in ast.walk(node):
        if (
            isinstance(target, ast.Attribute)
            and isinstance(target.ctx, ast.Store)
            and is_public(target.attr)
            and ast.unparse(target.value) == "self"
        ):
            yield (module, f"{node.name}.{target.attr}"), ast.Pass()


def overrides(node: ast.ClassDef) -> bool:
    """Return whether a base comes from click, peewee, ast or textual, which call methods by names of their own."""
    bases = [ast.unparse(base) for base in node.bases]
    return any(
        base.startswith(("click.", "peewee.", "ast.", "textual.")) or base in ("Group", "Model")
        for base in bases
    )


def imported(tree: ast.Module) -> tuple[dict[str, Name], dict[str, str]]:
    """Return what the names of a module stand for: names of other modules, and modules."""
    names: dict[str, Name] = {}
    aliases: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module is not None:
            module = node.module if node.module.startswith("backprop") else bare(node.module)
            for alias in node.names:
                names[alias.asname or alias.name] = (module, alias.name)
                aliases[alias.asname or alias.name] = f"{module}.{alias.name}"
        elif isinstance(node, ast.Import):
            for alias in node.names:
                aliases[alias.asname or alias.name] = bare(alias.name)
    return names, aliases


def bare(name: str) -> str:
    """Return the module that a program which stands alone imports by its bare name: its own, or the supervisor's."""
    own = (ROOT / "worker" / "executor" / "vram" / "mover" / f"{name}.py").exists()
    return f"{MOVER if own else SUPERVISOR}.{name}"


def uses(module: str, tree: ast.Module) -> Counter[Name]:
    """Count how often names are read in a module; attributes of any object under the module "*"."""
    names, aliases = imported(tree)
    counted: Counter[Name] = Counter()
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
            counted[names.get(node.id, (module, node.id))] += 1
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
            counted["*", node.attr] += 1
            if isinstance(node.value, ast.Name) and node.value.id in aliases:
                counted[aliases[node.value.id], node.attr] += 1
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value[:1].isupper():
            # The name of a class in quotes, as annotations have it.
            counted[names.get(node.value, (module, node.value))] += 1
    return counted


def dead_names() -> set[str]:
    """Return the names without a caller, each with its module."""
    parsed = trees()
    read: Counter[Name] = Counter()
    for module, tree in parsed.items():
        read += uses(module, tree)
    dead: set[str] = set()
    for module, tree in parsed.items():
        if not module.startswith(tuple(f"backprop.{folder}" for folder in FOLDERS)):
            continue
        for (where, name), node in definitions(module, tree):
            _, dot, method = name.partition(".")
            key = ("*", method) if dot else (where, name)
            within = uses(module, ast.Module([node], []))[key]
            if read[key] <= within:
                dead.add(f"{where.removeprefix('backprop.')}.{name}")
    return dead


def test_every_public_name_has_a_caller_in_the_product() -> None:
    assert dead_names() == set(EXCEPTIONS)
