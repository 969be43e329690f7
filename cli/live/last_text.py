"""Reads the end of a segment's output as text for a program: few lines, few bytes, no control characters."""

import re
from typing import Final

from backprop.cli.live.log_stream import last_lines
from backprop.cli.render.terminal_text import Colours
from backprop.scheduler.home.layout import Home
from backprop.worker.maintenance.log_archive import open_log

MOST_BYTES: Final = 8192
"""Of the text in JSON."""
CHUNK_BYTES: Final = 1 << 16
KEPT_BYTES: Final = 1 << 20
"""The most that is kept of a log while it is read: a progress bar redraws one line for hours."""
_COLOUR: Final = re.compile(r"\x1b\[[0-9;:]*m")


def last_text(home: Home, run_id: str, segment: int, lines: int) -> tuple[str, bool]:
    """Return the last lines of a segment's output, and whether that is all of it. `lines`: 0 for all that may be.

    What a progress bar has drawn over is left out.
    """
    skip = last_lines(home, run_id, segment, lines, alone=True)[1] if lines else 0
    kept, whole = b"", not skip
    try:
        with open_log(home.segment_folder(run_id, segment)) as log:
            log.seek(skip)
            while chunk := log.read(CHUNK_BYTES):
                kept += chunk
                if len(kept) > KEPT_BYTES:
                    kept, whole = kept[-KEPT_BYTES // 2 :], False
    except OSError:
        return "", True
    colours = Colours()
    shown = _COLOUR.sub("", (colours.feed(kept) + colours.close()).decode())
    text = "\n".join(map(last_drawn, shown.split("\n")))
    cut = _end(text)
    return cut, whole and cut == text


def last_drawn(line: str) -> str:
    """Return what a line shows in the end that was drawn again and again, as a progress bar is."""
    return line.rstrip("\r").rpartition("\r")[2]


def _end(text: str) -> str:
    """Return as much of the end as takes `MOST_BYTES` in JSON, from the beginning of a line unless that wastes most."""
    import json

    if len(json.dumps(text)) <= MOST_BYTES:
        return text
    text = text[-MOST_BYTES:]
    while (size := len(json.dumps(text))) > MOST_BYTES:
        text = text[max(1, (size - MOST_BYTES) // 12) :]
    rest = text.partition("\n")[2]
    return rest if len(rest) > len(text) // 2 else text
