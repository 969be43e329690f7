"""Keeps a run waiting whose port is taken, as long as another live run may be what has taken it.

Where no other run is live it is simply tried: `scheduler.outcome` counts how often that fails.
"""

from collections.abc import Sequence
from typing import Final

from backprop.scheduler.governor.decide import Decision, Denial, Rule
from backprop.scheduler.home.layout import Home
from backprop.scheduler.records import RunRecord
from backprop.worker.environment import ports

LONGEST_S: Final = 600.0
"""Where the script named no port, it is tried that much later, though the same runs are live."""


def port_refusal(home: Home, run: RunRecord, others: Sequence[RunRecord], now_s: float) -> Decision | None:
    """Return why a run has to wait for a port; None when it has not. `others`: the live runs, and those that are about
    to be claimed. `now_s`: Unix seconds."""
    note = ports.read_note(home.run_folder(run.id)) if others else None
    # What a user has resumed since may use another port.
    if note is None or note.segment <= run.chain_start:
        return None
    if note.port is None:
        live = {(other.id, other.segment) for other in others}
        if not note.beside or not live.issuperset(note.beside) or not 0 <= now_s - note.noted_s < LONGEST_S:
            return None
        return _refused("waits for a port that was taken; tried again once another run has ended")
    for other in others:
        known = ports.read_note(home.run_folder(other.id))
        # One that is starting does not listen yet.
        if known is not None and known.port == note.port and known.segment > other.chain_start:
            return _refused(f"waits for port {note.port}: {other.name} ({other.id}) uses it too")
    if ports.is_taken(note.port):
        return _refused(f"waits for port {note.port}: a program listens on it, perhaps another run")
    return None


def _refused(text: str) -> Decision:
    return Decision((Denial(Rule.PORT, None, None, text),), ())
