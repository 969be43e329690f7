"""Cuts the end of a log into the lines that a person would have seen, in time that grows with its length alone."""

import re
from typing import Final

MOST_LINES: Final = 4000
MAX_LINE: Final = 2000
_ENDS: Final = re.compile(r"[\r\n\x0b\x0c\x85\u2028\u2029]+")
"""A carriage return ends a line: each state of a progress bar is one."""
_ESCAPES: Final = re.compile(
    r"\x1b\[[0-9;:?]{0,64}[ -/]{0,4}[@-~]"  # colours, and movements of the cursor
    r"|\x1b\][^\x07\x1b]{0,2000}(?:\x07|\x1b\\)"  # links and titles
    r"|\x1b[^\[\]]|[\x00-\x08\x0e-\x1f\x7f]"
)


def lines_of(log: bytes) -> list[str]:
    """Return the last lines that are not blank, without escape sequences and cut to `MAX_LINE` characters."""
    text = log.decode(errors="replace")
    lines = (_ESCAPES.sub("", line[:MAX_LINE]).rstrip() for line in _ENDS.split(text)[-2 * MOST_LINES :])
    return [line for line in lines if line][-MOST_LINES:]
