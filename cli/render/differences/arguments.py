"""Takes command lines apart into options and their values, so that two of them can be compared by name."""

import re
import shlex
from collections.abc import Sequence
from typing import Final

_NUMBER: Final = re.compile(r"-\.?\d")
_OVERRIDE: Final = re.compile(r"([+~]{0,2}[A-Za-z_][\w./@-]*)=(.*)", re.DOTALL)
REST: Final = "other arguments"


def by_name(words: Sequence[str]) -> dict[str, str]:
    """Return what follows the script: the value of each option, "" for a flag; what has no name, in its order.

    Options are `--lr 1`, `--lr=1` and `lr=1`. Values of one that is repeated stand together.
    """
    found: dict[str, list[str]] = {}
    rest: list[str] = []
    at = 0
    while at < len(words):
        word = words[at]
        at += 1
        if word.startswith("-") and not _NUMBER.match(word) and word.strip("-"):
            name, equals, value = word.partition("=")
            if not equals and at < len(words) and (not words[at].startswith("-") or _NUMBER.match(words[at])):
                value = words[at]
                at += 1
            found.setdefault(name, []).append(value)
        elif (match := _OVERRIDE.fullmatch(word)) is not None:
            found.setdefault(match[1], []).append(match[2])
        else:
            rest.append(word)
    named = {name: values[0] if len(values) == 1 else shlex.join(values) for name, values in found.items()}
    return named | ({REST: shlex.join(rest)} if rest else {})
