"""Reads a script's imports, calls, names and literal values from its syntax tree. Runs nothing."""

import ast
from collections import defaultdict
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

from backprop.scheduler.recipes.script_facts import LONGEST_STRING, Call, Parameter, Script
from backprop.scheduler.recipes.syntax_tree import parse_tree

Function = ast.FunctionDef | ast.AsyncFunctionDef


@lru_cache(maxsize=4)
def parse(source: bytes) -> Script:
    """Return what the text says. Raises nothing."""
    return _Index().of(parse_tree(source))


@lru_cache(maxsize=4)
def parse_together(sources: tuple[bytes, ...]) -> Script:
    """Return what a script, the first, and modules of its own say together. What a module does as a script is left
    out. Raises nothing."""
    trees = (parse_tree(source) for source in sources[1:])
    scripts = [parse(sources[0]), *(_Index().of(_without_main(tree)) for tree in trees)]

    def lists(name: str) -> dict[str, list[Any]]:
        held: defaultdict[str, list[Any]] = defaultdict(list)
        for script in scripts:
            for key, values in getattr(script, name).items():
                held[key] += values
        return held

    def united(name: str) -> frozenset[str]:
        return frozenset[str]().union(*(getattr(script, name) for script in scripts))

    return Script(
        modules=united("modules"),
        uses=united("uses"),
        words=united("words"),
        strings=united("strings"),
        calls=tuple(call for script in scripts for call in script.calls),
        values=lists("values"),
        parameters=lists("parameters"),
        fields=lists("fields"),
        on_interrupt=united("on_interrupt"),
        keys_read=united("keys_read"),
    )


def _without_main(tree: ast.Module) -> ast.Module:
    def is_main(node: ast.stmt) -> bool:
        test = node.test if isinstance(node, ast.If) else None
        names = ast.walk(test) if test is not None else ()
        return any(isinstance(name, ast.Name) and name.id == "__name__" for name in names)

    return ast.Module([node for node in tree.body if not is_main(node)], [])


def dotted(node: ast.expr, origins: Mapping[str, str]) -> str:
    """Return where a name or attribute comes from.

    "." and its last part when it is not imported; "" for anything else.
    """
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    if isinstance(node, ast.Name):
        if (origin := origins.get(node.id)) is not None:
            return ".".join((origin, *reversed(parts)))
        return f".{parts[0]}" if parts else f".{node.id}"
    return f".{parts[0]}" if parts else ""


class _Index:
    """Indexes a tree in one walk, its imports first: a name may be used above the function that imports it."""

    def __init__(self) -> None:
        self.origins: dict[str, str] = {}
        self.modules: set[str] = set()
        self.uses: set[str] = set()
        self.words: set[str] = set()
        self.strings: set[str] = set()
        self.calls: list[Call] = []
        self.values: defaultdict[str, list[ast.expr]] = defaultdict(list)
        self.parameters: defaultdict[str, list[Parameter]] = defaultdict(list)
        self.fields: defaultdict[str, list[Parameter]] = defaultdict(list)
        self.on_interrupt: set[str] = set()
        self.keys_read: set[str] = set()

    def of(self, tree: ast.Module) -> Script:
        nodes = list(_walk(tree))
        for node, _ in nodes:
            if isinstance(node, ast.Import | ast.ImportFrom):
                self._import(node)
        for node, within in nodes:
            self._take(node, within)
        return Script(
            frozenset(self.modules),
            frozenset(self.uses),
            frozenset(self.words),
            frozenset(self.strings),
            tuple(self.calls),
            self.values,
            self.parameters,
            self.fields,
            frozenset(self.on_interrupt),
            frozenset(self.keys_read),
        )

    def _import(self, node: ast.Import | ast.ImportFrom) -> None:
        if isinstance(node, ast.Import):
            for alias in node.names:
                self.modules.add(alias.name)
                name = alias.asname or alias.name.partition(".")[0]
                self.origins[name] = alias.name if alias.asname else name
        elif node.module and not node.level:
            self.modules.add(node.module)
            for alias in node.names:
                self.origins[alias.asname or alias.name] = f"{node.module}.{alias.name}"

    def _take(self, node: ast.AST, within: str | None) -> None:
        match node:
            case ast.Name():
                self.words.add(node.id)
                if isinstance(node.ctx, ast.Load) and node.id in self.origins:
                    self.uses.add(self.origins[node.id])
            case ast.Attribute():
                self.words.add(node.attr)
                if (origin := dotted(node, self.origins)) and not origin.startswith("."):
                    self.uses.add(origin)
            case ast.Constant(value=str(text)) if len(text) <= LONGEST_STRING:
                self.strings.add(text)
            case ast.Subscript(slice=ast.Constant(value=str(key)), ctx=ast.Load()):
                self.keys_read.add(key)
            case ast.Call():
                self._call(node, within)
            case ast.Assign():
                for target in node.targets:
                    self._assign(target, node.value)
            case ast.AnnAssign(value=ast.expr() as value):
                self._assign(node.target, value)
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                self._function(node)
            case ast.ClassDef():
                self._class(node)
            case ast.ExceptHandler():
                self._handler(node)
            case _:
                pass

    def _call(self, node: ast.Call, within: str | None) -> None:
        name = dotted(node.func, self.origins)
        call = Call(name, node, within)
        self.calls.append(call)
        if call.last in ("get", "pop") and node.args and isinstance(key := node.args[0], ast.Constant):
            self.keys_read |= {key.value} if isinstance(key.value, str) else set()
        if node.args and name:
            self.values[f"{call.last}()"].append(node.args[0])
        for keyword in node.keywords:
            # What an option's declaration says of its default is not what the option's namesake holds.
            if keyword.arg is not None and call.last not in ("add_argument", "option", "field"):
                self.words.add(keyword.arg)
                self.values[keyword.arg].append(keyword.value)

    def _assign(self, target: ast.expr, value: ast.expr) -> None:
        if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
            for each, part in zip(target.elts, value.elts, strict=False):
                self._assign(each, part)
        elif isinstance(target, ast.Tuple) and isinstance(value, ast.Call):
            if dotted(value.func, self.origins).rpartition(".")[2] == "load":
                self.keys_read |= {each.id for each in target.elts if isinstance(each, ast.Name)}
        elif isinstance(target, ast.Name):
            self.values[target.id].append(value)
        elif isinstance(target, ast.Attribute):
            self.values[target.attr].append(value)

    def _function(self, node: Function) -> None:
        named = [*node.args.posonlyargs, *node.args.args]
        bare = len(named) - len(node.args.defaults)
        for at, parameter in enumerate(named):
            default = node.args.defaults[at - bare] if at >= bare else None
            self.parameters[node.name].append(
                Parameter(node.name, at, parameter.arg, default, parameter.annotation)
            )
        for parameter, default in zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True):
            self.parameters[node.name].append(
                Parameter(node.name, -1, parameter.arg, default, parameter.annotation)
            )

    def _class(self, node: ast.ClassDef) -> None:
        for at, line in enumerate(node.body):
            if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name):
                self.fields[node.name].append(
                    Parameter(node.name, at, line.target.id, line.value, line.annotation)
                )

    def _handler(self, node: ast.ExceptHandler) -> None:
        """Note what is called where KeyboardInterrupt is caught."""
        caught = ast.walk(node.type) if node.type is not None else ()
        if any(isinstance(name, ast.Name) and name.id == "KeyboardInterrupt" for name in caught):
            calls = (inner for line in node.body for inner in ast.walk(line) if isinstance(inner, ast.Call))
            self.on_interrupt |= {dotted(call.func, self.origins) for call in calls}


def _walk(tree: ast.Module) -> Iterator[tuple[ast.AST, str | None]]:
    """Yield every node in the order of the text, with the name of the function around it; docstrings left out."""
    pending: list[tuple[ast.AST, str | None]] = [(tree, None)]
    while pending:
        node, within = pending.pop()
        yield node, within
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            within = node.name
        children = [
            child
            for child in ast.iter_child_nodes(node)
            if not (isinstance(child, ast.Expr) and isinstance(child.value, ast.Constant))
        ]
        pending.extend((child, within) for child in reversed(children))
