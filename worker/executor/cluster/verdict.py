"""Concludes from a segment's files and from snapshots of the cluster's jobs what has become of a segment.

Pure but for what it remembers of one segment between two looks. Two rules keep a second leader from ever beginning: a
segment that has not begun is given up only by a claim that nobody can take any more, and one that has begun only by its
recorded end, or by the silence of a node whose job is over.

A snapshot that cannot be had changes nothing, for ever. One that was begun before the job was known to be in says
nothing of it. That it lacks a job counts once a second one, begun later, lacks it too.
"""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from backprop.worker.executor.base import Life
from backprop.worker.executor.cluster.engine import OVER, JobSeen, JobSnapshot, Phase
from backprop.worker.executor.cluster.segment_state import SegmentState
from backprop.worker.supervisor import claim

FRESH_S: Final = 60.0
"""How long an end that the engine caused waits for a snapshot that says why."""
LATE_S: Final = 600.0
"""A job that lives and has begun nothing for so long is spoken of."""


class JobAction(StrEnum):
    NOTHING = "nothing"
    VOID = "void"
    REVOKE = "revoke"


@dataclass(frozen=True)
class Times:
    """The times that follow from a lease, in seconds. `settle`: how much slower files may travel than the engine's
    answer. `twice`: between two snapshots that lack a job."""

    lease_s: float

    @property
    def settle_s(self) -> float:
        return self.lease_s / 4

    @property
    def twice_s(self) -> float:
        return self.lease_s / claim.BEATS


@dataclass(frozen=True)
class JobVerdict:
    """What a look has shown. `action`: what the worker is to do for it. `phase`: the engine's last known word of the
    job. `never_began`: of a LOST one. `silent_s`: for how long its node has given no sign."""

    life: Life
    action: JobAction = JobAction.NOTHING
    phase: Phase | None = None
    never_began: bool = False
    silent_s: float = 0.0


@dataclass
class Memory:
    """What is remembered of one segment. `seen`: the engine's last word. Times are monotonic."""

    seen: JobSeen | None = None
    missing_since_s: float | None = None
    over_since_s: float | None = None
    beat: int | None = None
    silent_s: float = 0.0
    listed_s: float | None = None
    ended_since_s: float | None = None
    waits_since_s: dict[str, float] = field(default_factory=dict[str, float])


def judge(
    memory: Memory,
    state: SegmentState | None,
    snapshot: JobSnapshot | None,
    token: str,
    counts_from_s: float | None,
    times: Times,
    now_s: float,
) -> JobVerdict:
    """Return what has become of a segment. `state` None: its folder cannot be seen. `counts_from_s`: from when on a
    snapshot knows of its job; None while it is still being handed over."""
    usable = counts_from_s is not None and snapshot is not None and snapshot.begun_s >= counts_from_s
    is_over = _is_over(memory, snapshot, token, times, now_s) if usable and snapshot is not None else False
    phase = memory.seen.phase if memory.seen is not None else None
    if state is None:
        memory.listed_s = None
        return JobVerdict(Life.ALIVE if memory.beat is not None else Life.WAITING, phase=phase)
    if state.exit is not None:
        return JobVerdict(_ended(memory, state, snapshot, now_s), phase=phase)
    if state.is_void:
        return JobVerdict(Life.LOST, phase=phase, never_began=True)
    if not state.has_begun:
        return JobVerdict(Life.WAITING, JobAction.VOID if is_over else JobAction.NOTHING, phase)
    _listen(memory, state, times, now_s)
    if not is_over:
        memory.over_since_s = None if usable else memory.over_since_s
        return JobVerdict(Life.ALIVE, phase=phase, silent_s=memory.silent_s)
    if memory.over_since_s is None:
        memory.over_since_s = now_s
    if state.revoked and memory.silent_s >= times.lease_s:
        return JobVerdict(Life.LOST, phase=phase, silent_s=memory.silent_s)
    late = not state.revoked and now_s - memory.over_since_s >= times.settle_s
    return JobVerdict(
        Life.ALIVE, JobAction.REVOKE if late else JobAction.NOTHING, phase, silent_s=memory.silent_s
    )


def _is_over(memory: Memory, snapshot: JobSnapshot, token: str, times: Times, now_s: float) -> bool:
    """Return whether a snapshot shows, or with an earlier one shows, that the job is over."""
    seen = snapshot.jobs.get(token)
    if seen is not None:
        memory.seen, memory.missing_since_s = seen, None
        waited = {seen.words: memory.waits_since_s.get(seen.words, now_s)}
        memory.waits_since_s = waited if seen.phase is Phase.WAITS else {}
        return seen.phase in OVER
    if memory.seen is not None and memory.seen.phase in OVER:
        return True
    if memory.missing_since_s is None:
        memory.missing_since_s = snapshot.begun_s
    return snapshot.begun_s - memory.missing_since_s >= times.twice_s


def _ended(memory: Memory, state: SegmentState, snapshot: JobSnapshot | None, now_s: float) -> Life:
    """Return ENDED; ALIVE while an end that the engine caused still waits for its word."""
    if state.exit is None or state.exit.ended_by != claim.ENGINE:
        return Life.ENDED
    if memory.ended_since_s is None:
        memory.ended_since_s = now_s
    told = memory.seen is not None and memory.seen.phase in OVER
    fresh = snapshot is not None and snapshot.begun_s > memory.ended_since_s and told
    return Life.ENDED if fresh or now_s - memory.ended_since_s >= FRESH_S else Life.ALIVE


def _listen(memory: Memory, state: SegmentState, times: Times, now_s: float) -> None:
    """Count how long the node has given no sign, while its folder could be seen."""
    if state.beat != memory.beat or memory.listed_s is None:
        memory.silent_s = 0.0 if state.beat != memory.beat else memory.silent_s
    else:
        memory.silent_s += min(now_s - memory.listed_s, times.twice_s)
    memory.beat, memory.listed_s = state.beat, now_s


def waits_for_s(memory: Memory, now_s: float) -> float:
    """Return for how long the job has waited for the reason that it waits for now."""
    words = memory.seen.words if memory.seen is not None else ""
    return now_s - memory.waits_since_s.get(words, now_s)
