"""Turns path expressions of a script into glob patterns: what only running would tell becomes a `*`."""

import ast
import glob
import re
from collections.abc import Mapping
from typing import Final

from backprop.scheduler.recipes import printed_values
from backprop.scheduler.recipes.command_line import Command
from backprop.scheduler.recipes.declared_options import Option
from backprop.scheduler.recipes.script_facts import Call, Script

MAX_EXPRESSIONS: Final = 5000
"""Read per script: names that refer to one another could be followed without end."""
MAX_DEPTH: Final = 16
_KEEPS: Final = {"abspath", "expanduser", "realpath", "normpath", "Path", "PurePath", "str", "fspath"}
_METHODS_KEEP: Final = {"resolve", "absolute", "expanduser", "as_posix", "__str__"}
_COUNTERS: Final = re.compile(r"step|epoch|iter", re.IGNORECASE)


class Paths:
    """Reads expressions of one script as it would run with one command line."""

    def __init__(self, script: Script, command: Command, declared: Mapping[str, Option]) -> None:
        self._script, self._command, self._declared = script, command, declared
        self._left = MAX_EXPRESSIONS
        self._following: set[str] = set()

    def of(self, node: ast.expr | None, depth: int = 0) -> str | None:
        """Return the pattern; None when nothing at all is known of it."""
        self._left -= 1
        if node is None or depth > MAX_DEPTH or self._left < 0:
            return None
        match node:
            case ast.Constant(value=str(text)):
                return glob.escape(text) if "\0" not in text else None
            case ast.Constant(value=int(number)) if not isinstance(number, bool) and abs(number) < 10**9:
                return str(number)
            case ast.Constant(value=float(number)):
                return glob.escape(str(number))
            case ast.JoinedStr():
                return "".join(self._part(each, depth) for each in node.values)
            case ast.BinOp(op=ast.Add()):
                left, right = self.of(node.left, depth + 1), self.of(node.right, depth + 1)
                return None if left is None and right is None else f"{left or '*'}{right or '*'}"
            case ast.BinOp(op=ast.Div()):
                return self._join([node.left, node.right], depth)
            case ast.BinOp(op=ast.Mod(), left=ast.Constant(value=str(text))):
                return self._percent(text, node.right, depth)
            case ast.BoolOp(op=ast.Or()):
                return next((path for each in node.values if (path := self.of(each, depth + 1))), None)
            case ast.Call():
                return self._call(node, depth)
            case ast.Name():
                return self._name(node.id, depth)
            case ast.Attribute():
                return self._name(node.attr, depth)
            case _:
                return None

    def all_of(self, node: ast.expr | None, within: str | None) -> list[str]:
        """Return patterns as `of`; for a parameter of the function `within`, one for each call of that function."""
        if isinstance(node, ast.Name) and within is not None and node.id not in self._script.values:
            paths: list[str | None] = []
            for parameter in self._script.parameters.get(within, ()):
                if parameter.name == node.id:
                    calls = self._script.calls_of(within)
                    arguments = [_argument(call, parameter.at, parameter.name) for call in calls]
                    paths = [self.of(each) for each in (*arguments, parameter.default) if each is not None]
            if known := [each for each in paths if each]:
                return known
        path = self.of(node)
        return [path] if path else []

    def named(self, name: str) -> list[str]:
        """Return what an option, a keyword or a variable of this name holds.

        From the command line, else from the option's default, else from the text.
        """
        given = self._command.value(name)
        if given:
            return [glob.escape(given)] if "\0" not in given else []
        option = self._declared.get(name)
        if option is not None and (default := self.of(option.default)):
            return [default]
        paths = [self.of(each) for each in self._script.values.get(name, ())[:8]]
        paths += [
            self.of(field.default)
            for fields in self._script.fields.values()
            for field in fields
            if field.name == name
        ]
        return list(dict.fromkeys(each for each in paths if each))

    def _part(self, node: ast.expr, depth: int) -> str:
        if isinstance(node, ast.FormattedValue):
            match node.format_spec:
                case None:
                    return self.of(node.value, depth + 1) or "*"
                case ast.JoinedStr(values=[ast.Constant(value=str(spec))]):
                    return self._printer(node.value, depth)(spec)
                case _:
                    return "*"
        return self.of(node, depth + 1) or "*"

    def _percent(self, text: str, arguments: ast.expr, depth: int) -> str:
        several = arguments.elts if isinstance(arguments, ast.Tuple) else [arguments]
        named: dict[str, printed_values.Part] = {}
        if isinstance(arguments, ast.Dict):
            several = []
            for key, value in zip(arguments.keys, arguments.values, strict=True):
                if isinstance(key, ast.Constant) and isinstance(key.value, str):
                    named[key.value] = self._printer(value, depth)
        return printed_values.percent(text, [self._printer(each, depth) for each in several], named)

    def _printer(self, node: ast.expr, depth: int) -> printed_values.Part:
        """Return what makes a pattern of this expression by a format, as in f"{node:format}"."""

        def part(spec: str) -> str:
            if not spec:
                return self.of(node, depth + 1) or "*"
            name = (
                node.id
                if isinstance(node, ast.Name)
                else node.attr
                if isinstance(node, ast.Attribute)
                else ""
            )
            given = self._command.value(name) if name else None
            if given:
                return printed_values.formatted(printed_values.typed(given, self._kind(name)), spec, given)
            return printed_values.formatted(self._default(node, name), spec)

        return part

    def _default(self, node: ast.expr, name: str) -> printed_values.Value | None:
        """Return a value that the text alone gives: a literal, or an option's default."""
        if name and _COUNTERS.search(name):
            return None
        option = self._declared.get(name) if name else None
        held = (
            [option.default]
            if option is not None
            else self._script.values.get(name, ())[:2]
            if name
            else [node]
        )
        match held:
            case [ast.Constant(value=int() | float() | str() as value)] if not isinstance(value, bool):
                kind = option.kind if option is not None and isinstance(value, str) else "text"
                return printed_values.typed(value, kind) if isinstance(value, str) else value
            case _:
                return None

    def _kind(self, name: str) -> str:
        option = self._declared.get(name)
        return option.kind if option is not None else ""

    def _join(self, nodes: list[ast.expr], depth: int) -> str | None:
        parts = [self.of(each, depth + 1) for each in nodes]
        if not any(parts):
            return None
        joined = ""
        for part in parts:
            text = "*" if part is None else part
            joined = text if text.startswith("/") or not joined else f"{joined.rstrip('/')}/{text}"
        return joined

    def _call(self, node: ast.Call, depth: int) -> str | None:
        func = node.func
        last = func.attr if isinstance(func, ast.Attribute) else func.id if isinstance(func, ast.Name) else ""
        if last == "join" and node.args and not isinstance(node.args[0], ast.List | ast.ListComp):
            return self._join(list(node.args), depth)
        if last == "joinpath" and isinstance(func, ast.Attribute):
            return self._join([func.value, *node.args], depth)
        if last == "format" and isinstance(func, ast.Attribute) and isinstance(func.value, ast.Constant):
            text = func.value.value
            named = {each.arg: self._printer(each.value, depth) for each in node.keywords if each.arg}
            several = [self._printer(each, depth) for each in node.args]
            return printed_values.braces(text, several, named) if isinstance(text, str) else None
        if last in _KEEPS and node.args:
            return self._join(list(node.args), depth)
        if last in _METHODS_KEEP and isinstance(func, ast.Attribute):
            return self.of(func.value, depth + 1)
        return None

    def _name(self, name: str, depth: int) -> str | None:
        if (given := self._command.value(name)) and "\0" not in given:
            value = printed_values.typed(given, self._kind(name))
            return glob.escape(str(value)) if value is not None else None
        # A counter's default is only where it starts. A name met again on its own path stands for itself.
        if _COUNTERS.search(name) or name in self._following:
            return None
        option = self._declared.get(name)
        values = self._script.values.get(name, ())[:8]
        defaults = [
            parameter.default
            for parameters in (*self._script.parameters.values(), *self._script.fields.values())
            for parameter in parameters
            if parameter.name == name and parameter.default is not None
        ]
        self._following.add(name)
        try:
            if option is not None and (default := self.of(option.default, depth + 1)):
                return default
            known = {path for each in (*values, *defaults[:8]) if (path := self.of(each, depth + 1))}
        finally:
            self._following.discard(name)
        return known.pop() if len(known) == 1 else None


def step_in(node: ast.expr | None, pattern: str) -> str | None:
    """Return a regular expression for the step in the name of such a file.

    None unless the last part of `pattern` has one `*` and `node`, the path's expression, a counter.
    """
    name = pattern.rpartition("/")[2]
    if node is None or name.count("*") != 1:
        return None
    words = (each for each in ast.walk(node) if isinstance(each, ast.Name | ast.Attribute))
    if not any(_COUNTERS.search(each.id if isinstance(each, ast.Name) else each.attr) for each in words):
        return None
    before, _, after = re.sub(r"\[(.)\]", r"\1", name).partition("*")
    return rf"(?:^|/){re.escape(before)}(\d+){re.escape(after)}$"


def _argument(call: Call, at: int, name: str) -> ast.expr | None:
    """Return what a call passes for a parameter."""
    for keyword in call.node.keywords:
        if keyword.arg == name:
            return keyword.value
    return call.node.args[at] if 0 <= at < len(call.node.args) else None
