"""Defines the life of a run as one table: its states, the events that move it, and which moves are legal.

Imports nothing of the product and reads no clock, database or process. A new state is a row of `TRANSITIONS` and a
paragraph in `DESCRIPTION`, never an `if` elsewhere. How a segment ended (exit code, signal, timebox) is a result that
is kept beside the state, not another state. The page
`docs/design/lifecycle.md` is generated from it.
"""

from enum import StrEnum


class State(StrEnum):
    """Where a run is in its life; `DESCRIPTION` says what each state means. The values are stored and shown."""

    QUEUED = "queued"
    SUBMITTED = "submitted"
    RUNNING = "running"
    PAUSED = "paused"
    SUSPENDED = "suspended"
    HELD = "held"
    COMPLETED = "completed"
    FAILED = "failed"
    TIMEBOXED = "timeboxed"
    STOPPED = "stopped"


class Event(StrEnum):
    """What happened to a run. The worker that claimed the run causes it, or a command of the user."""

    CLAIMED = "claimed"
    SUBMITTED = "submitted"
    BEGUN = "begun"
    PAUSED = "paused"
    SUSPENDED = "suspended"
    CONTINUED = "continued"
    THAWED = "thawed"
    REQUEUED = "requeued"
    COMPLETED = "completed"
    FAILED = "failed"
    TIMEBOXED = "timeboxed"
    STOPPED = "stopped"
    HELD = "held"
    SET_ASIDE = "set aside"
    RELEASED = "released"
    RESUMED = "resumed"
    DECLARED_DONE = "declared done"


class Intent(StrEnum):
    """Why a live segment is asked to end. It is recorded before any signal is sent."""

    TIMEBOX = "timebox"
    STOP = "stop"
    YIELD = "yield"
    LIMIT = "limit"
    STARTED_OVER = "started over"
    OUTRANKED = "outranked"
    NAN = "nan"
    STRANDED = "stranded"


DESCRIPTION: dict[State, str] = {
    State.QUEUED: (
        "The run waits for its turn, for its dependencies and for the governor to admit it. A new run starts here,"
        " and a chain returns here after each segment. Nothing runs, so a crash changes nothing."
    ),
    State.SUBMITTED: (
        "The run's next segment is a job that a cluster has not started yet; nothing of it runs. It is withdrawn when"
        " its user stops, holds or edits the run, and a job that begins all the same ends at once. A worker that dies"
        " changes nothing: the next one finds the job by its token."
    ),
    State.RUNNING: (
        "A worker has claimed the run. A segment is alive, or it has ended and its end has not been recorded yet. After"
        " a crash the locks tell which, and the next worker takes the segment over or records its end."
    ),
    State.PAUSED: (
        "The segment is alive but frozen, because its GPU is too hot, for example. Its timebox does not count, and its"
        " memory stays reserved. The worker continues the segment, or ends it to make room."
    ),
    State.SUSPENDED: (
        "The segment is alive but frozen, and waits for its next turn: its timebox was over while others waited, and an"
        " end would have lost work; or its user has suspended it. It holds no slot and keeps its RAM; its VRAM too,"
        " where that cannot be moved there. In its turn a worker thaws it, and the same process goes on. After a reboot"
        " it goes on from its last checkpoint, or is held where its user has suspended it."
    ),
    State.HELD: (
        "The run waits for its user and never starts by itself. The user holds it, or has suspended it where it could"
        " not stand still. Backprop holds it when it cannot start as it is, or when its segment is over and how it"
        " ended cannot be read. The reason then tells what to do. `release` or `resume` queues it again; where it is"
        " held for missing files, their return does so too."
    ),
    State.COMPLETED: (
        "The script ended by itself with exit code 0, or so after it was asked to stop and its output shows the end of"
        " the training, or the user has said that it is done. `resume` can queue the run again."
    ),
    State.FAILED: (
        "The script ended by itself with another exit code, or Backprop ended it for a fault such as a NaN loss, and no"
        " retry is left. `resume` queues the run again from its last checkpoint."
    ),
    State.TIMEBOXED: (
        "The timebox ended and the chain does not go on by itself: a limit is reached, auto-resume is off, or no new"
        " checkpoint was saved. The reason says which. `resume` continues the chain. Where the last segment exited 0,"
        " the run may be done: `resume --done` says so, and what waits for it to complete waits until then."
    ),
    State.STOPPED: (
        "The user stopped the run, its group did (for its rank, a goal that is met, or a budget that is used up), or a"
        " dependency can never be met. `resume` queues it again."
    ),
}
"""A paragraph of prose for each state, for people."""

TRANSITIONS: dict[tuple[State, Event], State] = {
    (State.QUEUED, Event.CLAIMED): State.RUNNING,
    (State.QUEUED, Event.SUBMITTED): State.SUBMITTED,
    (State.SUBMITTED, Event.BEGUN): State.RUNNING,
    (State.SUBMITTED, Event.REQUEUED): State.QUEUED,
    (State.SUBMITTED, Event.SET_ASIDE): State.HELD,
    (State.SUBMITTED, Event.STOPPED): State.STOPPED,
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
    (State.RUNNING, Event.SET_ASIDE): State.HELD,
    (State.RUNNING, Event.SUSPENDED): State.SUSPENDED,
    (State.PAUSED, Event.SUSPENDED): State.SUSPENDED,
    (State.SUSPENDED, Event.THAWED): State.RUNNING,
    (State.PAUSED, Event.COMPLETED): State.COMPLETED,
    (State.PAUSED, Event.FAILED): State.FAILED,
    (State.PAUSED, Event.TIMEBOXED): State.TIMEBOXED,
    (State.PAUSED, Event.STOPPED): State.STOPPED,
    (State.PAUSED, Event.REQUEUED): State.QUEUED,
    (State.PAUSED, Event.SET_ASIDE): State.HELD,
    (State.SUSPENDED, Event.COMPLETED): State.COMPLETED,
    (State.SUSPENDED, Event.FAILED): State.FAILED,
    (State.SUSPENDED, Event.TIMEBOXED): State.TIMEBOXED,
    (State.SUSPENDED, Event.STOPPED): State.STOPPED,
    (State.SUSPENDED, Event.REQUEUED): State.QUEUED,
    (State.SUSPENDED, Event.SET_ASIDE): State.HELD,
    (State.COMPLETED, Event.RESUMED): State.QUEUED,
    (State.FAILED, Event.RESUMED): State.QUEUED,
    (State.TIMEBOXED, Event.RESUMED): State.QUEUED,
    (State.STOPPED, Event.RESUMED): State.QUEUED,
    (State.HELD, Event.DECLARED_DONE): State.COMPLETED,
    (State.FAILED, Event.DECLARED_DONE): State.COMPLETED,
    (State.TIMEBOXED, Event.DECLARED_DONE): State.COMPLETED,
    (State.STOPPED, Event.DECLARED_DONE): State.COMPLETED,
}

FINAL: frozenset[State] = frozenset(state for state in State if (state, Event.RESUMED) in TRANSITIONS)
"""States that a run leaves only by the user's `resume`."""

SETTLED: frozenset[State] = FINAL | {State.HELD}
"""States in which a run stays until its user, or the return of its files, moves it: it has ended, or is held."""

HAS_PROCESSES: frozenset[State] = frozenset({State.SUBMITTED, State.RUNNING, State.PAUSED, State.SUSPENDED})
"""States in which a segment may have processes. Its locks, files and memory are in use. A job that was submitted may
begin at any moment."""

HOLDS_A_SLOT: frozenset[State] = frozenset({State.SUBMITTED, State.RUNNING, State.PAUSED})
"""States that count against the parallel limits of the run and the group, and of the worker or the cluster."""

HOLDS_VRAM: frozenset[State] = HAS_PROCESSES - {State.SUBMITTED}
"""States in which what was promised on its GPUs stays promised: freezing gives no memory back. A suspended run whose
VRAM was moved to RAM is promised none: see `SegmentRecord.vram_out_mib`."""


def next_state(state: State, event: Event) -> State | None:
    """Return the state that `event` leads to from `state`; None when the table has no such row."""
    return TRANSITIONS.get((state, event))
