"""Reads the options that a script's own text declares, and their help.

They come from argparse and click calls, absl flags, and the fields or parameters that tyro, fire, typer,
simple_parsing, draccus and HfArgumentParser make options of.
"""

import ast
from collections.abc import Iterator
from typing import Final, Literal

import msgspec

from backprop.scheduler.recipes.command_line import normal
from backprop.scheduler.recipes.script_facts import Call, Parameter, Script

Takes = Literal["value", "flag", "bool", "other"]
_FLAGS: Final = {"store_true", "store_const", "BooleanOptionalAction"}
_BOOLS: Final = {"bool", "str2bool", "strtobool", "string_to_bool", "str_to_bool", "boolean"}
_TEXTS: Final = {"str", "Path", "PathLike", "FilePath"}
_FROM_CLASSES: Final = {
    "tyro.cli",
    "transformers.HfArgumentParser",
    "trl.TrlParser",
    "simple_parsing.parse",
    "draccus.parse",
    "draccus.wrap",
    "pyrallis.parse",
    "pyrallis.wrap",
}
_FROM_FUNCTIONS: Final = {"tyro.cli", "fire.Fire", "typer.run", "draccus.wrap", "pyrallis.wrap"}


class Option(msgspec.Struct, frozen=True):
    """A declared option.

    `flag`: as it is typed. `takes`: "value" for what may be a path, "flag" for nothing, "bool" for a truth value,
    "other" for a number, one of some choices, or several. `default`: its expression. `joined`: the script takes only
    `--flag=value`. `kind`: the type of its value, "int", "float" or "text"; "" where that is not known. `choices`: the
    words that it takes; empty where it is not bound to some.
    """

    name: str
    flag: str
    takes: Takes
    help: str = ""
    default: ast.expr | None = None
    joined: bool = False
    kind: str = ""
    choices: tuple[str, ...] = ()


def options_of(script: Script) -> dict[str, Option]:
    """Return the declared options by name, dashes as underscores; of two with one name the first."""
    options: dict[str, Option] = {}
    for call in script.calls:
        for option in _declared(script, call):
            options.setdefault(option.name, option)
    return options


def _declared(script: Script, call: Call) -> Iterator[Option]:
    if call.last == "add_argument":
        yield from _argparse(call.node)
    elif call.last == "option":
        yield from _click(call.node)
    elif call.last.startswith("DEFINE_"):
        yield from _absl(call)
    if call.name in _FROM_CLASSES:
        for name in _names(call.node.args):
            yield from (_field(each, call.name) for each in script.fields.get(name, ()))
    if call.name in _FROM_FUNCTIONS:
        for name in _names(call.node.args):
            yield from (_field(each, call.name) for each in script.parameters.get(name, ()))


def _argparse(node: ast.Call) -> Iterator[Option]:
    flag = _flag(node)
    if flag is None:
        return
    given = _keywords(node)
    action = _word(given.get("action"))
    kind = _word(given.get("type"))
    takes: Takes = "value"
    if action in _FLAGS:
        takes = "flag"
    elif kind in _BOOLS or isinstance(given.get("type"), ast.Lambda):
        takes = "bool"
    elif (
        "choices" in given
        or action not in ("", "store")
        or kind not in ("", *_TEXTS)
        or _word(given.get("nargs")) in ("+", "*", "REMAINDER")
    ):
        takes = "other"
    name = _word(given.get("dest")) or normal(flag)
    of_text = kind in ("", *_TEXTS) and action in ("", "store")
    yield Option(
        name,
        flag,
        takes,
        _text(given.get("help")),
        given.get("default"),
        kind="text" if of_text else _kind_of(kind),
        choices=_choices(given.get("choices")),
    )


def _choices(node: ast.expr | None) -> tuple[str, ...]:
    return tuple(map(_text, node.elts)) if isinstance(node, ast.List | ast.Tuple | ast.Set) else ()


def _kind_of(word: str) -> str:
    """Return the kind of value that a type's name stands for."""
    return (
        word if word in ("int", "float") else {"integer": "int", "INT": "int", "FLOAT": "float"}.get(word, "")
    )


def _click(node: ast.Call) -> Iterator[Option]:
    flag = _flag(node)
    if flag is None:
        return
    given = _keywords(node)
    kind = given.get("type")
    word = _word(kind.func if isinstance(kind, ast.Call) else kind)
    takes: Takes = "value"
    if "/" in flag or _is_true(given.get("is_flag")):
        takes = "flag"
    elif word in _BOOLS or word == "BOOL":
        takes = "bool"
    elif word not in ("", *_TEXTS, "STRING", "File") or _is_true(given.get("multiple")):
        takes = "other"
    flag = flag.partition("/")[0]
    chosen = kind.args[0] if isinstance(kind, ast.Call) and word == "Choice" and kind.args else None
    yield Option(
        normal(flag),
        flag,
        takes,
        _text(given.get("help")),
        given.get("default"),
        kind=_kind_of(word),
        choices=_choices(chosen),
    )


def _absl(call: Call) -> Iterator[Option]:
    words = [_text(each) for each in call.node.args]
    if not words or not words[0]:
        return
    kind = call.last.removeprefix("DEFINE_")
    takes: Takes = "value" if kind == "string" else "flag" if kind in ("bool", "boolean") else "other"
    default = call.node.args[1] if len(call.node.args) > 1 else None
    text = words[2] if len(words) > 2 else _text(_keywords(call.node).get("help"))
    yield Option(words[0], f"--{words[0]}", takes, text, default, joined=True, kind=_kind_of(kind))


def _field(parameter: Parameter, maker: str) -> Option:
    default, text = parameter.default, ""
    if isinstance(default, ast.Call):  # dataclasses.field(default=…, metadata={"help": …})
        text = " ".join(_text(each) for each in ast.walk(default) if isinstance(each, ast.Constant))
        default = _keywords(default).get("default")
    kinds = _types(parameter.annotation)
    if kinds:
        takes: Takes = "value" if kinds & _TEXTS else "flag" if "bool" in kinds else "other"
    elif isinstance(default, ast.Constant) and isinstance(default.value, bool):
        takes = "flag"
    else:
        takes = "value" if default is None or _text(default) or _is_none(default) else "other"
    if takes == "flag" and maker == "transformers.HfArgumentParser":
        takes = "bool"
    dashed = parameter.name.replace("_", "-") if maker == "typer.run" else parameter.name
    kind = next((each for each in ("float", "int") if each in kinds), "text" if kinds & _TEXTS else "")
    return Option(parameter.name, f"--{dashed}", takes, text, default, joined=maker == "fire.Fire", kind=kind)


def _types(node: ast.expr | None) -> set[str]:
    if node is None:
        return set()
    text = node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""
    if text:
        return {part.strip() for part in text.replace("[", "|").replace("]", "|").split("|")}
    return {_word(each) for each in ast.walk(node) if isinstance(each, ast.Name | ast.Attribute)}


def _flag(node: ast.Call) -> str | None:
    """Return the longest spelling of an option; None for a positional argument."""
    words = [_text(each) for each in node.args]
    return max((word for word in words if word.startswith("-") and len(word) > 1), key=len, default=None)


def _keywords(node: ast.Call) -> dict[str, ast.expr]:
    return {each.arg: each.value for each in node.keywords if each.arg is not None}


def _names(nodes: list[ast.expr]) -> list[str]:
    return [each.id for node in nodes[:1] for each in ast.walk(node) if isinstance(each, ast.Name)]


def _word(node: ast.expr | None) -> str:
    """Return a name, the last part of an attribute, or a string; "" for nothing, "?" for anything else."""
    match node:
        case None:
            return ""
        case ast.Constant(value=str(text)):
            return text
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name
        case _:
            return "?"


def _text(node: ast.expr | None) -> str:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""


def _is_true(node: ast.expr | None) -> bool:
    return isinstance(node, ast.Constant) and node.value is True


def _is_none(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is None
