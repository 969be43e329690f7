"""What moves are legal? The life of a run, as one table.

Imports nothing of ours and reads no clock, database or process. A new state is a row here and a line in
`DESCRIPTION`, never an `if` elsewhere. How a segment ended (exit code, signal, timebox) is a result kept beside
the state, not another state. `docs/design/lifecycle.md` holds the diagram drawn from this table.
"""

from enum import StrEnum


class State(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    PAUSED = "paused"
    HELD = "held"
    COMPLETED = "completed"
    FAILED = "failed"
    TIMEBOXED = "timeboxed"
    STOPPED = "stopped"


class Event(StrEnum):
    """What happened to a run. Each is caused by the worker that owns the claim, or by a command of the user's."""

    CLAIMED = "claimed"
    PAUSED = "paused"
    CONTINUED = "continued"
    REQUEUED = "requeued"
    COMPLETED = "completed"
    FAILED = "failed"
    TIMEBOXED = "timeboxed"
    STOPPED = "stopped"
    HELD = "held"
    RELEASED = "released"
    RESUMED = "resumed"


class Intent(StrEnum):
    """Why a live segment is asked to end. Recorded before any signal is sent."""

    TIMEBOX = "timebox"
    STOP = "stop"
    YIELD = "yield"
    LIMIT = "limit"
    STARTED_OVER = "started over"
    OUTRANKED = "outranked"
    NAN = "nan"


DESCRIPTION: dict[State, str] = {
    State.QUEUED: "waits for the governor; a crash changes nothing",
    State.RUNNING: "a segment is alive, or its end has not been settled yet; after a crash the locks tell which",
    State.PAUSED: "a segment is alive and frozen; its timebox does not count",
    State.HELD: "waits for the user; never started by itself",
    State.COMPLETED: "the script ended by itself with exit code 0",
    State.FAILED: "the script ended by itself with another code, and no retry is left",
    State.TIMEBOXED: "the timebox ended and the chain does not go on by itself; the reason says why",
    State.STOPPED: "the user stopped it",
}

TRANSITIONS: dict[tuple[State, Event], State] = {
    (State.QUEUED, Event.CLAIMED): State.RUNNING,
    (State.QUEUED, Event.HELD): State.HELD,
    (State.QUEUED, Event.STOPPED): State.STOPPED,
    (State.HELD, Event.RELEASED): State.QUEUED,
    (State.HELD, Event.STOPPED): State.STOPPED,
    (State.RUNNING, Event.PAUSED): State.PAUSED,
    (State.PAUSED, Event.CONTINUED): State.RUNNING,
    (State.RUNNING, Event.COMPLETED): State.COMPLETED,
    (State.RUNNING, Event.FAILED): State.FAILED,
    (State.RUNNING, Event.TIMEBOXED): State.TIMEBOXED,
    (State.RUNNING, Event.STOPPED): State.STOPPED,
    (State.RUNNING, Event.REQUEUED): State.QUEUED,
    (State.PAUSED, Event.COMPLETED): State.COMPLETED,
    (State.PAUSED, Event.FAILED): State.FAILED,
    (State.PAUSED, Event.TIMEBOXED): State.TIMEBOXED,
    (State.PAUSED, Event.STOPPED): State.STOPPED,
    (State.PAUSED, Event.REQUEUED): State.QUEUED,
    (State.COMPLETED, Event.RESUMED): State.QUEUED,
    (State.FAILED, Event.RESUMED): State.QUEUED,
    (State.TIMEBOXED, Event.RESUMED): State.QUEUED,
    (State.STOPPED, Event.RESUMED): State.QUEUED,
}

FINAL: frozenset[State] = frozenset(
    state for state in State if {event for source, event in TRANSITIONS if source is state} == {Event.RESUMED}
)
"""States that nothing leaves but the user's `resume`."""

LIVE: frozenset[State] = frozenset(state for state in State if (state, Event.REQUEUED) in TRANSITIONS)
"""States in which a segment may have processes: the run counts against the parallel limit and holds VRAM."""


def next_state(state: State, event: Event) -> State | None:
    """The state that `event` leads to from `state`; None when the table has no such row."""
    return TRANSITIONS.get((state, event))
