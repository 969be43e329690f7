"""Cuts output into the lines that a person would see, one for each state of a bar, without colours and prefixes.

Every line is cut to `MAX_LINE` characters, and every pattern here takes time in proportion to its line.
"""

import re
from typing import Final

MAX_LINE: Final = 4096
MAX_PREFIXES: Final = 8

_ENDS: Final = re.compile(rb"[\r\n\x08]+")
"""Keras moves back over its bar with backspaces where it is not on a terminal."""
_ESCAPES: Final = re.compile(r"\x1b(?:\[[0-9;?]{0,32}[A-Za-z]|[^\[])|[\x00-\x08\x0b-\x1f\x7f]")
_RANK: Final = re.compile(r"\[?(?:rank|default) ?(?P<rank>\d{1,4})\]?:\s?|\d{1,4}: (?=\S)", re.IGNORECASE)
_STAMPS: Final = (
    re.compile(
        r"[\[(]?\d{4}[-/]\d\d?[-/]\d\d?(?:[T ]\d\d?:\d\d(?::\d\d)?(?:[.,]\d{1,9})?)?(?:Z|[+-]\d\d:?\d\d)?[\])]?"
    ),
    re.compile(r"\[?\d\d?/\d\d?(?:/\d{2,4})? \d\d:\d\d(?::\d\d)?(?:[.,]\d{1,9})?(?: [\w.]{1,64})?\]?:?"),
    re.compile(r"[\[(]?\d\d:\d\d:\d\d(?:[.,]\d{1,9})?[\])]?(?=[\s|-])"),
    re.compile(
        r"[\[(<]?(?:DEBUG|INFO|NOTICE|WARN(?:ING)?)[\])>]?(?::[\w.<>-]{0,64}:)?(?![\w.])", re.IGNORECASE
    ),
    re.compile(r"[IWEF]\d{4} [\d:.]{8,20}\s{1,8}\d{1,9} [\w.]{1,64}:\d{1,6}\]"),
)
_BETWEEN: Final = re.compile(
    r"[-:|]\s*(?=[^\s\d.])|\[[^\W\d][\w.:]{0,63}\]\s*:?|[\w.:<>]{1,64}\s{0,8}[-|]\s(?=\s*\S)"
)
"""What a logger puts behind its time and level: marks, and its name."""


def split(data: bytes, whole: bool = False) -> tuple[list[bytes], int]:
    """Return the complete lines of `data`, and how many bytes they take. `whole`: nothing will be added to the last."""
    pieces = _ENDS.split(data)
    left = b"" if whole else pieces[-1]
    if not whole:
        pieces.pop()
    return [piece for piece in pieces if piece], len(data) - len(left)


def clean(piece: bytes) -> str | None:
    """Return what a line says, without escape sequences and prefixes; None for one of another rank than the first:
    counters of several ranks would run back and forth."""
    text = _ESCAPES.sub("", piece[:MAX_LINE].decode(errors="replace")).strip()
    rank = _RANK.match(text)
    if rank is not None:
        if rank["rank"] not in (None, "0"):
            return None
        text = text[rank.end() :].lstrip()
    logged = False
    for _ in range(MAX_PREFIXES):
        found = (match for each in _STAMPS if (match := each.match(text)) is not None)
        match = next(found, None) or (_BETWEEN.match(text) if logged else None)
        if match is None:
            break
        logged = True
        text = text[match.end() :].lstrip()
    return text
