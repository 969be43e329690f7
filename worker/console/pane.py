"""Lays out a line of the worker's pane: the time, a sign, the run, what happened, and more about it.

Pure. Colours and line breaks are for a terminal alone; the words are the same everywhere.
"""

import textwrap
from typing import Final

import msgspec

INDENT: Final = 11
"""Columns of time and sign: what follows a line break begins below the name."""
LEAST_WIDTH: Final = 40
"""In a narrower terminal a line is broken by the terminal."""
_NAME: Final = 20
_WHAT: Final = 10
GOOD: Final = ("✓", "32")
AGAIN: Final = ("↻", "34")
BAD: Final = ("✗", "31")
SOFT: Final = ("✗", "33")
GOES_ON: Final = (" ", "36")
MIND: Final = (" ", "33")
LOOKS: Final = {
    **dict.fromkeys(("completed", "empty"), GOOD),
    **dict.fromkeys(("requeued", "renewed"), AGAIN),
    **dict.fromkeys(("failed", "trouble", "no backup", "killing", "killed"), BAD),
    **dict.fromkeys(("timeboxed", "stranded"), SOFT),
    **dict.fromkeys(("started", "adopted", "continued", "thawed", "released", "open", "recovered"), GOES_ON),
    "restored": GOES_ON,
    **dict.fromkeys(("ready", "hourly", "queue", "parallel"), (" ", "1")),
    **dict.fromkeys(("paused", "suspended", "held", "kept", "closed", "drained", "quarantine"), MIND),
    "leaving": MIND,
    **dict.fromkeys(("refused", "passed over", "started over", "overtime", "stopping", "repairing"), MIND),
}
"""What happened → its sign, and its colour as SGR has it."""
PLAIN: Final = (" ", "")


class PaneLook(msgspec.Struct, frozen=True):
    """What the reader's terminal takes. `width`: None where nothing is to be broken. `signs`: it shows more than
    ASCII."""

    width: int | None = None
    colour: bool = False
    signs: bool = True


def line(at: str, what: str, name: str, run_id: str, more: str, look: PaneLook) -> str:
    """Return the line, of several below each other where it has to be broken. `name` empty: it is about no run."""
    sign, colour = LOOKS.get(what, PLAIN)
    sign = sign if look.signs else " "
    who = f"{name} ({run_id})" if name else ""
    gap = " " * max(_NAME - len(who), 0) + "  " if who else ""
    head = f"{at} {sign} {who}{gap}{what}"
    whole = f"{head}{' ' * max(_WHAT - len(what), 0)}  {more}".rstrip()
    lines = _broken(whole, look, INDENT)
    if look.colour and lines[0].startswith(head):
        told = f"{_in('1', name)} {_in('2', f'({run_id})')}{gap}" if name else ""
        painted = f"{_in('2', at)} {_in(colour, sign)} {told}{_in(colour, what)}"
        lines[0] = painted + lines[0][len(head) :]
    return "\n".join(lines)


def plain(text: str, look: PaneLook) -> str:
    """Return a line without these parts, broken where it has to be."""
    return "\n".join(_broken(text, look, 0))


def _broken(text: str, look: PaneLook, indent: int) -> list[str]:
    """Break between words. A longer word, as a path, stays whole: it is to be copied."""
    if look.width is None or look.width < LEAST_WIDTH:
        return [text]
    return textwrap.wrap(
        text,
        look.width,
        subsequent_indent=" " * indent,
        break_long_words=False,
        break_on_hyphens=False,
        expand_tabs=False,
        replace_whitespace=False,
    ) or [""]


def _in(colour: str, text: str) -> str:
    return f"\x1b[{colour}m{text}\x1b[0m" if colour and text.strip() else text
