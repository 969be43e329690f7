"""Prints the values of arguments as a script does: `--lr 1e-3` becomes 0.001 in the name of a folder. Pure.

What only running would tell becomes a `*`.
"""

import glob
import re
from collections.abc import Callable, Mapping, Sequence
from string import Formatter
from typing import Final

Value = int | float | str
MAX_WIDTH: Final = 64
_PERCENT: Final = re.compile(r"%(?:\((\w+)\))?([-+ #0]*\d{0,2}(?:\.\d{1,2})?[a-zA-Z%])")
_SPEC: Final = re.compile(r"[-+ 0<>^=#,_]*(\d{0,2})(?:\.\d{1,2})?[a-zA-Z%]?")
_OF_FLOATS: Final = ("e", "E", "f", "F", "g", "G", "%")


def typed(text: str, kind: str) -> Value | None:
    """Return an argument's value by the declared type of its option; None where that is unknown, and matters.

    `kind`: "int", "float", "text", or "" where it is not known.
    """
    try:
        if kind == "int":
            return int(text)
        if kind == "float":
            return float(text)
        if kind == "text" or text == str(int(text)):
            return text
    except ValueError:
        pass
    if kind in ("int", "float"):
        return None
    try:
        return text if str(float(text)) == text else None
    except ValueError:
        return text


def formatted(value: Value | None, spec: str, given: str | None = None) -> str:
    """Return what a format makes of a value, as a pattern. `given`: the argument's text, where its type is unknown."""
    try:
        match = _SPEC.fullmatch(spec)
        if match is None or int(match[1] or 0) > MAX_WIDTH:
            return "*"
        if spec.endswith(_OF_FLOATS) and given is not None and not isinstance(value, float):
            value = float(given)
        elif spec.endswith("d") and given is not None:
            value = int(given)
        return glob.escape(format(value, spec)) if value is not None else "*"
    except (ValueError, TypeError, OverflowError):
        return "*"


Part = Callable[[str], str]
"""Returns what a format makes of one argument, as a pattern."""


def percent(text: str, positional: Sequence[Part], named: Mapping[str, Part]) -> str:
    """Return the pattern of `text % arguments`."""
    if "%" in _PERCENT.sub("", text):
        return "*"
    at, ends, parts = 0, 0, list[str]()
    for match in _PERCENT.finditer(text):
        parts.append(glob.escape(text[ends : match.start()]))
        ends = match.end()
        if match[2] == "%":
            parts.append("%")
            continue
        part = named.get(match[1]) if match[1] else (positional[at] if at < len(positional) else None)
        at += match[1] is None
        parts.append(part(_as_format(match[2])) if part is not None else "*")
    return "".join([*parts, glob.escape(text[ends:])])


def braces(text: str, positional: Sequence[Part], named: Mapping[str, Part]) -> str:
    """Return the pattern of `text.format(…)`."""
    at, parts = 0, list[str]()
    try:
        for literal, name, spec, conversion in Formatter().parse(text):
            parts.append(glob.escape(literal))
            if name is None:
                continue
            number = at if not name else int(name) if name.isdecimal() else -1
            at += not name
            part = named.get(name) if number < 0 else positional[number] if number < len(positional) else None
            known = part is not None and not conversion and "{" not in (spec or "")
            parts.append(part(spec or "") if part is not None and known else "*")
    except ValueError:
        return "*"
    return "".join(parts)


def _as_format(spec: str) -> str:
    """Return a conversion of `%` as `format` takes it: `%-5s` is left out, as are the rarer ones."""
    if spec in ("s", "r", "i", "d"):
        return "" if spec in ("s", "r") else "d"
    return spec if spec[-1] in _OF_FLOATS or spec[-1] == "d" else "?"
