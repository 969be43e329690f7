"""Freezes and continues a segment, and counts for how long it was paused, across the deaths of its supervisors.

A pause is noted in `pause.json` before it begins, and twice at its end: before the processes go on, and once they do.
So a successor knows whether one is on, how far a begun or ended one has come, and how long those before it took. The
notes are on the monotonic clock with the id of its boot: the wall clock may be set, and no segment outlives the boot.
A pause that carries out an order to suspend has the number of that order in its note, and lasts until its worker ends
it; so has an order that was refused. Standard library only, imports nothing of Backprop.
"""

import contextlib
import time
from collections.abc import Callable
from pathlib import Path

import failpoint
import files
import process_tree

NAME = "pause.json"


class Pauses:
    """The pauses of one segment. `since_s`: when the present one began, on CLOCK_MONOTONIC; None while it runs.

    `suspended`: the order that it carries out, None for another pause. `refused`: the last order that was refused.
    `find`: finds the living processes of the segment.
    """

    def __init__(self, folder: Path, find: process_tree.Finder) -> None:
        self._path = folder / NAME
        self._find = find
        self._before_s = 0.0
        self.since_s: float | None = None
        self._by_others = False
        self.suspended: int | None = None
        self.refused: int | None = None
        self._why: str | None = None

    def take_over(self, stopped: bool) -> None:
        """Go on with what a supervisor that died has noted. `stopped`: whether the leader is stopped now.

        One that is stopped without a note of it was paused by a program of 0.1.0, on a full disk, or by somebody else.
        That counts from now on, as nobody knows better, until it goes on: see `look`.
        """
        note = files.read_if_possible(self._path) or {}
        self._before_s = process_tree.of_this_boot(note, "paused_s") or 0.0
        since_s, until_s = (
            process_tree.of_this_boot(note, f"{name}_monotonic_s") for name in ("since", "until")
        )
        self.refused = _number(note.get("refused"))
        if since_s is None:
            self.since_s = time.monotonic() if stopped else None
            self._by_others = stopped
        elif until_s is None:
            # Whoever asked for the pause counts on it, however far the freezing had come.
            self.since_s = since_s
            self.suspended = _number(note.get("suspended"))
            process_tree.freeze(self._find)
        elif stopped:
            # It was to go on and does not yet.
            self.since_s = since_s
            self.end()
        else:
            self._before_s += until_s - since_s

    def look(self, stopped: Callable[[], bool]) -> None:
        """See whether a pause that was none of ours is over: whoever stopped the leader lets it go on unasked."""
        if self._by_others and not stopped():
            self.end()

    def begin(self) -> None:
        """Freeze everything; nothing if that is done."""
        if self.since_s is not None:
            return
        self.since_s = time.monotonic()
        # A beginning that can't be noted is not held back: a hot GPU does not wait for a disk.
        self._note(None)
        failpoint.at("pausing")
        process_tree.freeze(self._find)

    def confirm(self, order: int) -> None:
        """Make the present pause one that carries out an order to suspend."""
        self.suspended = order
        self._note(None)

    def refuse(self, order: int, why: str) -> None:
        """Note that an order to suspend is not carried out."""
        self.refused, self._why = order, why
        self._note(None)

    def end(self) -> None:
        """Let everything go on, whoever stopped it."""
        if self.since_s is None:
            process_tree.thaw(self._find)
            return
        self._by_others, self.suspended = False, None
        until_s = time.monotonic()
        noted = self._note(until_s)
        failpoint.at("continuing")
        process_tree.thaw(self._find)
        self._before_s += until_s - self.since_s
        self.since_s = None
        if not (self._note(None) or noted):
            # The old note would let a successor freeze what runs; one that knows of no pause does less harm.
            with contextlib.suppress(OSError):
                self._path.unlink()

    def ended_s(self) -> float:
        """Return how long the pauses took that are over."""
        return self._before_s

    def _note(self, until_s: float | None) -> bool:
        content: dict[str, object] = {
            "boot_id": process_tree.boot_id(),
            "paused_s": self._before_s,
            "since_monotonic_s": self.since_s,
            "until_monotonic_s": until_s,
            "suspended": self.suspended,
            "refused": self.refused,
            "why": self._why,
        }
        try:
            files.write(self._path, content, durable=False)
        except OSError:
            return False
        return True


def _number(value: object) -> int | None:
    return value if isinstance(value, int) else None
