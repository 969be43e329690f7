"""Draws something again and again on a terminal: on its alternate screen, in place, until Ctrl-C gives it back."""

import os
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from typing import Final

from backprop.cli.render.json_views import is_terminal

ENTER: Final = "\x1b[?1049h\x1b[?25l"
LEAVE: Final = "\x1b[?25h\x1b[?1049l"
HOME: Final = "\x1b[H"
REST_OF_LINE: Final = "\x1b[K"
REST_OF_SCREEN: Final = "\x1b[J"
POLL_S: Final = 0.1


def can_redraw() -> bool:
    """Return whether stdout is a terminal that can be drawn on."""
    return is_terminal(sys.stdout) and os.environ.get("TERM", "dumb") != "dumb"


def takes_colours() -> bool:
    """Return whether stdout is a terminal that is to be given colours."""
    return can_redraw() and not os.environ.get("NO_COLOR")


def watch(lines: Callable[[], Sequence[str]], every_s: float) -> None:
    """Draw what `lines` returns every `every_s` seconds, at once where the size changes, until Ctrl-C.

    Where stdout cannot be drawn on, print the lines below each other.
    """
    redraws = can_redraw()
    if redraws:
        _put(ENTER)
    try:
        while True:
            drawn = lines()
            if redraws:
                _put(frame(drawn, shutil.get_terminal_size().lines))
            else:
                _put("\n".join([*drawn, ""]))
            _wait(every_s)
    except KeyboardInterrupt:
        return
    finally:
        if redraws:
            _put(LEAVE)


def frame(lines: Sequence[str], height: int) -> str:
    """Return what replaces the screen by these lines, cut to its height, without a blank moment in between."""
    shown = lines[:height]
    return HOME + "\n".join(f"{line}{REST_OF_LINE}" for line in shown) + REST_OF_SCREEN


def _wait(every_s: float) -> None:
    size, until_s = shutil.get_terminal_size(), time.monotonic() + every_s
    while time.monotonic() < until_s and shutil.get_terminal_size() == size:
        time.sleep(min(POLL_S, every_s))


def _put(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()
