"""Knows until when a segment may run: the box in force, and the one decision at its end.

    box-N.json  written   the decision on box N, made once, by the worker or by this program; whoever finds it obeys it
    box.json    read      the worker's standing order, for a worker that has not decided by the end of the box
    deadline    written   when the box in force ends, for the script

A worker that is dead, stopped or slow is one case: silence. Then the standing order counts. Where it says that an end
would lose work, or says nothing, the segment goes on, and its supervisor looks again each second: keeping work comes
before turns. An order that its worker has not confirmed for a minute only ends a run that is known to lose nothing.
Times are seconds of running time. Standard library only, imports nothing of Backprop.
"""

import contextlib
import time
from pathlib import Path

import failpoint
import files
import once
import process_tree

FORMAT = 1
"""Of the decisions and the standing order that this program understands, as `processes.json` says."""
STALE_S = 60.0
LOOK_EVERY_S = 1.0
DEADLINE = "deadline"
END, AUTO, NONE = "end", "auto", "none"
"""What the order says about the end of a box: it ends the segment, it is decided upon, or there is no box."""


class Boxes:
    """The boxes of one segment. `due_s`: when to call `decide`.

    `number`: of the box in force, from 1. `ends_s`: its end. `rule`: END, AUTO or NONE.
    """

    def __init__(self, folder: Path, timebox_s: float, rule: str) -> None:
        self._folder = folder
        self._timebox_s = timebox_s
        self.rule = rule
        self.number, self.ends_s = 1, timebox_s
        self.due_s = self.ends_s
        self.catch_up()

    def catch_up(self) -> None:
        """Go on to the box in force, by all that was decided."""
        if self.rule != AUTO:
            return
        while self._obey(self._decided()):
            pass
        self.due_s = self.ends_s

    def decide(self, running_s: float) -> str | None:
        """Return why the segment is to be asked to end now; None to let it go on until `due_s`."""
        if self.rule != AUTO:
            return "timebox"
        decided = self._decided() or self._decide()
        if decided.get("choice") == "ask":
            return "timebox"
        self.due_s = self.ends_s if self._obey(decided) else running_s + LOOK_EVERY_S
        return None

    def write_deadline(self, running_s: float) -> None:
        """Tell the script when the box in force ends, where that may change: in Unix seconds, on the monotonic clock,
        and in which boot that counts."""
        if self.rule != AUTO:
            return
        left_s = self.ends_s - running_s
        text = f"{time.time() + left_s:.3f} {time.monotonic() + left_s:.3f} {process_tree.boot_id()}\n"
        with contextlib.suppress(OSError):
            files.write_text(self._folder / DEADLINE, text)

    def _decided(self) -> dict[str, object] | None:
        return files.glance(self._folder / f"box-{self.number}.json")

    def _obey(self, decided: dict[str, object] | None) -> bool:
        """Go on to the next box, if that was decided."""
        until_s = decided.get("until_s") if decided is not None and decided.get("choice") == "renew" else None
        if not isinstance(until_s, int | float) or until_s <= self.ends_s:
            return False
        self.number, self.ends_s = self.number + 1, float(until_s)
        return True

    def _decide(self) -> dict[str, object]:
        """Decide on the box in force by the standing order; return what was decided, which may be another's word."""
        order = files.glance(self._folder / "box.json") or {}
        if order.get("box") != self.number or not _may_end(order):
            return {}
        decision: dict[str, object] = {
            "format": FORMAT, "choice": "ask", "why": order.get("why"), "by": "supervisor", "at_s": time.time(),
        }  # fmt: skip
        failpoint.at("deciding")
        with contextlib.suppress(OSError):
            once.make_once(self._folder / f"box-{self.number}.json", decision)
            failpoint.at("decided")
        # What could not be written was not decided: a successor would not know.
        return self._decided() or {}


def _may_end(order: dict[str, object]) -> bool:
    """Return whether the standing order lets the segment be ended. One of another format or boot says nothing."""
    looked_s = process_tree.of_this_boot(order, "looked_monotonic_s")
    if order.get("format") != FORMAT or order.get("unsaved") is not False or looked_s is None:
        return False
    return order.get("proven") is True or time.monotonic() - looked_s <= STALE_S
