"""Writes single values as TOML, and checks those that come back from the editor."""

from collections.abc import Sequence
from typing import Any, Final, cast

from backprop.scheduler.errors import BadCommand

NONE: Final = "none"
"""TOML has no null."""
LINE: Final = 90


def line(key: str, value: object, comment: str) -> str:
    """Return `key = value  # comment`, with the comments of short lines below each other."""
    return f"{f'{key} = {quoted(value)}':<38}  # {comment}"


def array(words: Sequence[str]) -> str:
    """Return words as an array, on one line if it is short."""
    texts = [quoted(word) for word in words]
    text = f"[{', '.join(texts)}]"
    if len(text) <= LINE:
        return text
    return "[\n" + "".join(f"  {each},\n" for each in texts) + "]"


def quoted(value: object) -> str:
    """Return a bool, a number or a text as TOML."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return f'"{"".join(map(_escaped, value))}"'
    return str(value)


def in_units(value: object, scale: int) -> object:
    """Return a field of a specification in the units of its key, as TOML has it. `scale`: field units per key unit."""
    if value is None:
        return NONE
    if isinstance(value, bool) or not isinstance(value, int | float):
        return value
    amount = round(value / scale, 6)
    return int(amount) if amount == int(amount) else amount


def by_dotted_key(tables: dict[str, Any]) -> dict[str, object]:
    """Return the values by dotted key, without [env]."""
    values: dict[str, object] = {}
    for name, value in tables.items():
        if name == "env":
            continue
        if isinstance(value, dict):
            table = cast("dict[str, object]", value)
            values |= {f"{name}.{key}": each for key, each in table.items()}
        else:
            values[name] = value
    return values


def text(key: str, value: object) -> str:
    """Return a text. Raises BadCommand."""
    if not isinstance(value, str):
        raise BadCommand(f"{key}: expected a text in quotes; got {one_line(value)}")
    return value


def whole(key: str, value: object, low: int, high: int) -> int:
    """Return a whole number from `low` to `high`. Raises BadCommand."""
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise BadCommand(f"{key}: expected a whole number from {low} to {high}; got {one_line(value)}")
    return value


def environment(value: object) -> dict[str, str]:
    """Return the variables of [env]. Raises BadCommand."""
    if not isinstance(value, dict):
        raise BadCommand('env: expected a table of NAME = "value"')
    variables: dict[str, str] = {}
    for name, entry in cast("dict[str, object]", value).items():
        if not isinstance(entry, str) or "\0" in entry or not name or "=" in name or "\0" in name:
            raise BadCommand(f'env: expected NAME = "value"; got {one_line(name)} = {one_line(entry)}')
        variables[name] = entry
    return variables


def one_line(value: object) -> str:
    """Return a value as a message may quote it: one line of at most 60 characters."""
    shown = " ".join(str(value).split())
    return shown if len(shown) <= 60 else f"{shown[:59]}…"


def _escaped(char: str) -> str:
    if char in ('"', "\\"):
        return f"\\{char}"
    return f"\\u{ord(char):04x}" if ord(char) < 32 or ord(char) == 127 else char
