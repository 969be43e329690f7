"""What does a script's text say when it cannot be parsed: another Python's syntax, or too long? Searched, not parsed.

Comments are left out, strings are not: a mention in a string counts here. So less is concluded from it elsewhere, where
`Script.parsed` is asked.
"""

import ast
import re
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Final

from backprop.scheduler.recipes.script_facts import LONGEST_STRING, Call, Script

MAX_CALLS: Final = 500
MAX_CALL_CHARACTERS: Final = 2000
_COMMENT: Final = re.compile(r"(?m)(?:^|\s)#[^\n]*")
_IMPORT: Final = re.compile(r"(?m)^[ \t]*import[ \t]+([\w.]+)(?:[ \t]+as[ \t]+(\w+))?")
_FROM: Final = re.compile(r"(?m)^[ \t]*from[ \t]+([\w.]+)[ \t]+import[ \t]*(\([^)]{0,4000}\)|[^\n]{0,1000})")
_ALIAS: Final = re.compile(r"(\w+)(?:[ \t]+as[ \t]+(\w+))?")
_VALUE: Final = re.compile(r"""(?<![\w.])(\w+)[ \t]*=[ \t]*(['"])([^'"\n\\]{1,200})\2""")
_STRING: Final = re.compile(r"""(['"])([^'"\n\\]{1,200})\1""")
_DECLARES: Final = re.compile(r"\.(?:add_argument|option)\(")
# Bounded, and begun only where a word begins: one endless word would be tried from each of its letters.
_CALLED: Final = re.compile(r"(?<![\w.])([A-Za-z_]\w{0,80}(?:\.\w{1,80}){0,8})[ \t]{0,8}\(")


def search(text: str) -> Script:
    """As much of `source.Script` as regular expressions can find. Raises nothing."""
    text = _COMMENT.sub("", text)
    origins, modules = _imports(text)
    words = Counter(re.findall(r"[A-Za-z_]\w*", text))
    values: defaultdict[str, list[ast.expr]] = defaultdict(list)
    for name, _, value in _VALUE.findall(text):
        values[name].append(ast.Constant(value))
    used = {origin for name, origin in origins.items() if words[name] > 1}
    calls = [*_declarations(text), *_calls(text, origins)]
    return Script(
        modules=frozenset(modules),
        uses=frozenset(used | {call.name for call in calls if not call.name.startswith(".")}),
        words=frozenset(words),
        strings=frozenset(value for _, value in _STRING.findall(text) if len(value) <= LONGEST_STRING),
        calls=tuple(calls),
        values=values,
    )


def _imports(text: str) -> tuple[dict[str, str], set[str]]:
    origins: dict[str, str] = {}
    modules: set[str] = set()
    for module, alias in _IMPORT.findall(text):
        modules.add(module)
        name = alias or module.partition(".")[0]
        origins[name] = module if alias else name
    for module, names in _FROM.findall(text):
        if not module.startswith("."):
            modules.add(module)
            for name, alias in _ALIAS.findall(names):
                origins[alias or name] = f"{module}.{name}"
    return origins, modules


def _declarations(text: str) -> Iterator[Call]:
    """Calls that declare an option, each parsed alone."""
    for number, found in enumerate(_DECLARES.finditer(text)):
        if number == MAX_CALLS:
            return
        snippet = _balanced(text[found.end() - 1 : found.end() + MAX_CALL_CHARACTERS])
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                tree = ast.parse(f"f{snippet}", mode="eval").body
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            continue
        if isinstance(tree, ast.Call):
            yield Call(found.group()[:-1], tree, None)


def _calls(text: str, origins: dict[str, str]) -> Iterator[Call]:
    """Which functions are called; with what is not known."""
    nothing = ast.Call(ast.Name("f"), [], [])
    for name in set(_CALLED.findall(text)):
        first, dot, rest = name.partition(".")
        if first in origins:
            yield Call(f"{origins[first]}{dot}{rest}", nothing, None)
        elif (last := name.rpartition(".")[2]) not in ("add_argument", "option"):
            yield Call(f".{last}", nothing, None)


def _balanced(text: str) -> str:
    """From the opening parenthesis to its own closing one. Those in strings are taken for real ones."""
    depth = 0
    for at, char in enumerate(text):
        depth += (char == "(") - (char == ")")
        if depth == 0:
            return text[: at + 1]
    return ""
