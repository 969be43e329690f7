"""Says what the screen with keys says of itself: which keys there are, in one line and in full. Pure."""

from typing import Final

from backprop.cli.render.glyphs import Glyphs
from backprop.cli.render.terminal_text import safe

KEYS: Final = (
    ("↑↓", "choose"),
    ("⏎", "log"),
    ("w", "why"),
    ("s", "suspend"),
    ("x", "stop"),
    ("f", "first"),
    ("/", "filter"),
    ("?", "help"),
    ("q", "quit"),
)
PLAIN: Final = {"↑↓": "j k", "⏎": "l"}
BACK: Final = (("q", "back"), ("↑↓", "scroll"))
HELP: Final = """\
Up, Down, k, j      choose a run; PgUp, PgDn, Home and End go further
Enter, l            its output, as it grows
w                   why it is where it is: every rule that it waits for
s                   suspend a live run: it stands still and keeps its memory;
                    or let a run go on that you have suspended
x                   stop it; you are asked once, and it may save first
f                   move it to the front of the queue
/                   show runs of such names alone: lr=*, or any part of a name
Esc                 show all of them again
?                   this help
q, Ctrl-C           quit; nothing that runs is touched

Each key does what the command of that name does: backprop help suspend.
▸ marks the chosen run. ≈ is a forecast. What has just ended is at the bottom.
"""


def key_line(keys: tuple[tuple[str, str], ...], glyphs: Glyphs) -> list[tuple[str, str]]:
    """Return keys with what they do, in the signs that this terminal has."""
    return [(PLAIN.get(key, key) if glyphs.plain else key, does) for key, does in keys]


def help_text(glyphs: Glyphs) -> str:
    """Return the help in the signs that this terminal has."""
    return glyphs.text(HELP.replace("▸", glyphs.chosen))


def pattern(typed: str) -> str | None:
    """Return the pattern of names that was meant: a part of a name stands anywhere in it. None for all names."""
    typed = typed.strip()
    if not typed:
        return None
    return typed if any(sign in typed for sign in "*?[") else f"*{typed}*"


def one_line(error: Exception) -> str:
    """Return an error in one line."""
    said = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) else str(error)
    return safe(" ".join(said.split()))
