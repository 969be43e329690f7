"""Implements `base.Executor` for one cluster: hands segments over as jobs, looks after them, and withdraws them.

No call waits for the share or the engine: files are looked at in threads of `user_files`, the engine is the
submitter's. What a look concludes is in `verdict`; what it asks to be done is done with the next look.
"""

import contextlib
import functools
import math
import os
import signal
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from backprop.scheduler.config.clusters import Cluster
from backprop.scheduler.home import shared_folder
from backprop.scheduler.home.layout import Home
from backprop.scheduler.records import RunRecord, SegmentRecord
from backprop.worker.executor import segment_files
from backprop.worker.executor.base import Life, SegmentOrder
from backprop.worker.executor.cluster import node_program, segment_state
from backprop.worker.executor.cluster.engine import Engine
from backprop.worker.executor.cluster.job import job_of
from backprop.worker.executor.cluster.segment_state import SegmentState
from backprop.worker.executor.cluster.submitter import HandOverAnswer, HandOverKind, Submitter
from backprop.worker.executor.cluster.verdict import (
    LATE_S,
    JobAction,
    JobVerdict,
    Memory,
    Times,
    judge,
    waits_for_s,
)
from backprop.worker.executor.segment_files import ExitRecord, OrderFile
from backprop.worker.supervisor import claim, failpoint
from backprop.worker.user_files import NOT_YET, UserFiles

ORPHAN_S: Final = 60.0
"""A command of a dead worker may still hand its job over for so long."""
NEVER_S: Final = 300.0
"""A wait that does not end by itself is one once it has lasted so long."""
CLOSED_S: Final = {HandOverKind.FULL: (60.0, 600.0), HandOverKind.UNSURE: (30.0, 300.0)}
"""How long nothing is handed over after such an answer, at first and at most."""


@dataclass(frozen=True)
class JobLook:
    """What is known of a segment now. `job`, `node`: as far as known. `words`: for its user.
    `gives_up`: why it never begins; `refused`: the engine would never run it; `withdrawn`: that was our decision."""

    verdict: JobVerdict
    exit: ExitRecord | None = None
    job: str | None = None
    node: str | None = None
    has_begun: bool = False
    words: str = ""
    gives_up: str | None = None
    refused: bool = False
    withdrawn: bool = False


@dataclass
class _Segment:
    """One segment as this worker knows it. `counts_from_s`: see `verdict.judge`. `todo`: for the next look.
    `gives_up`, `refused`: see `Look`."""

    memory: Memory = field(default_factory=Memory)
    counts_from_s: float | None = None
    job: str | None = None
    todo: set[str] = field(default_factory=set[str])
    gives_up: str | None = None
    refused: bool = False
    state: SegmentState | None = None
    seen_s: float = -math.inf
    last: JobLook | None = None


@dataclass
class Closure:
    """Why nothing is handed over now, and until when (monotonic)."""

    why: str
    until_s: float
    lasts_s: float


class ClusterExecutor:
    """One per worker and cluster. `engine`: None where the cluster is not configured any more, so that its jobs can be
    watched by their files alone."""

    def __init__(self, name: str, cluster: Cluster, home: Home, files: UserFiles, engine: Engine) -> None:
        self.name = name
        self.cluster = cluster
        self._home = home
        self._files = files
        self._times = Times(cluster.lease_s)
        self._segments: dict[str, _Segment] = {}
        self.submitter = Submitter(engine, cluster.engine, cluster.poll_s)
        self.closure: Closure | None = None
        self._look_every_s = min(2.0, cluster.lease_s / 24)

    def folder(self, run: RunRecord, number: int) -> Path:
        """Return the segment's folder as the nodes see it."""
        return shared_folder.path_of(run.spec.share or self.cluster.folder, run.id) / str(number)

    def start(self, order: SegmentOrder) -> None:
        """Hand a claimed segment over. Raises OSError when its order cannot be written."""
        assert order.token is not None
        folder = self.folder(order.run, order.number)
        try:
            folder.mkdir(mode=0o700, exist_ok=True)
            if order.before is not None:
                segment_files.write_before(folder, order.before)
            program = node_program.install(order.run.spec.share or self.cluster.folder)
            failpoint.at("before order")
            segment_files.write_order(folder, self._order_file(order, folder))
            failpoint.at("after order")
        finally:
            os.close(order.lock)
        self._segments[order.token] = _Segment()
        command = (self._python(), "-I", "-S", "-X", "utf8", str(program), "--job", str(folder), order.token)
        name = f"bp-{order.run.id}-{order.number}"
        job = job_of(order.run.spec, self.cluster, name, order.token, folder, command, order.timebox_s)
        self.submitter.submit(job)

    def look(self, run: RunRecord, segment: SegmentRecord) -> JobLook:
        """Return what has become of a segment. Raises nothing that passes."""
        known = self._known(segment)
        now_s = time.monotonic()
        if known.last is not None and not known.todo and now_s - known.seen_s < self._look_every_s:
            return known.last
        known.seen_s = now_s
        known.state = self._visit(run, segment, known)
        if known.state is not None and known.state.job is not None:
            known.job = known.job or known.state.job.job
            known.counts_from_s = known.counts_from_s if known.counts_from_s is not None else now_s
        snapshot = self.submitter.snapshot
        token = segment.token or ""
        verdict = judge(known.memory, known.state, snapshot, token, known.counts_from_s, self._times, now_s)
        seen = known.memory.seen
        known.job = known.job or (seen.job if seen is not None else None)
        known.todo.discard(verdict.action.value)
        if verdict.action is not JobAction.NOTHING:
            known.todo.add(verdict.action.value)
        waits = known.state is not None and known.state.exit is not None and verdict.life is Life.ALIVE
        if waits:
            self.submitter.hurry()
        self._give_up_hopeless(known, verdict, now_s)
        if verdict.never_began and known.job is not None:
            self.submitter.cancel([known.job])
        known.last = self._described(run, segment, known, verdict, now_s)
        return known.last

    def withdraw(self, segment: SegmentRecord, why: str, *, refused: bool = False) -> None:
        """Keep a segment that has not begun from ever beginning. One that has begun meanwhile is left alone."""
        known = self._known(segment)
        known.gives_up, known.refused = known.gives_up or why, refused
        known.todo.add(JobAction.VOID.value)

    def ask(self, segment: SegmentRecord) -> None:
        """Ask a segment to checkpoint and end; one that has not begun is withdrawn."""
        self.withdraw(segment, "withdrawn")
        self._known(segment).todo.add(claim.ASK)

    def kill(self, segment: SegmentRecord) -> None:
        """End a segment now."""
        self._known(segment).todo.add(claim.KILL)

    def room(self, live: int, now_s: float) -> int:
        """Return how many more segments may be handed over now. `live`: how many jobs this home has there."""
        if self.closure is not None and now_s < self.closure.until_s:
            return 0
        return max(self.cluster.max_jobs - live, 0)

    def take_answers(self) -> list[HandOverAnswer]:
        """Take in what has become of hand-overs; return it. Call once per tick."""
        found = self.submitter.answers()
        for answer in found:
            known = self._segments.setdefault(answer.token, _Segment())
            known.counts_from_s = answer.at_s
            if answer.kind is HandOverKind.IN:
                known.job, self.closure = answer.text, None
            elif answer.kind is HandOverKind.REFUSED:
                known.gives_up, known.refused = answer.text, True
                known.todo.add(JobAction.VOID.value)
            else:
                self._close_for(answer)
                if answer.kind is HandOverKind.FULL:
                    known.gives_up = f"{self.name} takes no more jobs now: {answer.text}"
                    known.todo.add(JobAction.VOID.value)
        return found

    def forget(self, live: set[str]) -> None:
        """Forget segments other than those of these tokens; no job is watched where none is left."""
        for token in self._segments.keys() - live:
            del self._segments[token]
        self.submitter.want_snapshots(bool(live))

    def wake_fds(self) -> list[int]:
        """Return descriptors that become readable when something of a job may have changed."""
        return [self.submitter.fileno()]

    def close(self) -> None:
        """Leave all jobs alone, waiting ones too: the next worker goes on with them."""
        self.submitter.close()

    def _known(self, segment: SegmentRecord) -> _Segment:
        """Return what is known; of a segment that another worker has handed over, a snapshot counts once no command of
        that worker can still be under way."""
        token = segment.token or ""
        if token not in self._segments:
            self._segments[token] = _Segment(counts_from_s=time.monotonic() + ORPHAN_S, job=segment.job)
            self.submitter.want_snapshots(True)
        return self._segments[token]

    def _visit(self, run: RunRecord, segment: SegmentRecord, known: _Segment) -> SegmentState | None:
        """Do what is to be done in a segment's folder, and read it; None while it does not answer."""
        folder, todo = self.folder(run, segment.number), frozenset(known.todo)
        look = functools.partial(_visit, folder, todo, known.gives_up or "its job is over")
        with contextlib.suppress(OSError):
            state = self._files.ask(("job", segment.token), look, str(folder))
            if state is not NOT_YET:
                known.todo -= todo
                return state
        return None

    def _give_up_hopeless(self, known: _Segment, verdict: JobVerdict, now_s: float) -> None:
        seen = known.memory.seen
        hopeless = verdict.life is Life.WAITING and seen is not None and seen.never and not seen.by_admin
        if hopeless and seen is not None and waits_for_s(known.memory, now_s) >= NEVER_S:
            known.gives_up, known.refused = seen.words, True
            known.todo.add(JobAction.VOID.value)

    def _described(
        self, run: RunRecord, segment: SegmentRecord, known: _Segment, verdict: JobVerdict, now_s: float
    ) -> JobLook:
        state, seen = known.state, known.memory.seen
        started = state.started if state is not None and state.has_begun else None
        gives_up = known.gives_up
        if verdict.never_began and gives_up is None:
            line = segment_state.last_line(self.folder(run, segment.number))
            gives_up = f"its job ended before it began{f': {line}' if line else ''}"
        return JobLook(
            verdict,
            state.exit if state is not None else None,
            known.job,
            started.host if started is not None else (seen.node if seen is not None else None),
            started is not None,
            self._words(known, verdict, now_s),
            gives_up,
            known.refused,
            known.gives_up is not None,
        )

    def _words(self, known: _Segment, verdict: JobVerdict, now_s: float) -> str:
        """Say what is known of a job, for people."""
        job = f"job {known.job}" if known.job is not None else "its job"
        silent_since_s, seen = self.submitter.silent_since_s, known.memory.seen
        if verdict.life is Life.ALIVE:
            if verdict.silent_s >= self._times.lease_s:
                return f"{job}: its node has given no sign for {verdict.silent_s:.0f} s"
            return job
        if silent_since_s is not None and now_s - silent_since_s > self.cluster.poll_s:
            since = time.strftime("%H:%M", time.localtime(time.time() - (now_s - silent_since_s)))
            return f"{job}: {self.name} has not answered since {since}"
        if seen is None:
            return f"{job} was handed over" if known.job is not None else "being handed over"
        if seen.phase.value == "lives":
            late = waits_for_s(known.memory, now_s) > LATE_S
            return f"{job} starts on {seen.node}{', for more than ten minutes' if late else ''}"
        return f"{job} waits ({seen.words})" if seen.words else f"{job} waits"

    def _close_for(self, answer: HandOverAnswer) -> None:
        first_s, most_s = CLOSED_S[answer.kind]
        lasts_s = first_s if self.closure is None else min(self.closure.lasts_s * 2, most_s)
        self.closure = Closure(answer.text, answer.at_s + lasts_s, lasts_s)

    def _order_file(self, order: SegmentOrder, folder: Path) -> OrderFile:
        spec = order.run.spec
        return OrderFile(
            spec=str(folder / "environment.json"),
            queued_spec=str(folder.parent / "spec.json"),
            program=spec.program,
            argv=order.argv,
            cwd=spec.cwd,
            umask=spec.umask,
            environment=order.environment,
            cookie=(
                f"BACKPROP_RUN_ID={order.run.id}",
                f"BACKPROP_SEGMENT={order.number}",
                f"BACKPROP_EVENTS={folder}/events.jsonl",
            ),
            timebox_s=order.timebox_s,
            grace_s=spec.grace_s,
            stop_signal=int(signal.Signals[f"SIG{spec.stop_signal}"]),
            soft_limits=spec.soft_limits,
            signal_to=spec.signal_to,
            token=order.token,
            setup=self.cluster.setup,
            lease_s=self.cluster.lease_s,
            python=self._python(),
        )

    def _python(self) -> str:
        return self.cluster.python or sys.executable


def _visit(folder: Path, todo: frozenset[str], why: str) -> SegmentState:
    """Do what is to be done in a segment's folder, and read it. Raises OSError."""
    if JobAction.VOID.value in todo:
        segment_state.void(folder)
    if JobAction.REVOKE.value in todo:
        segment_state.revoke(folder, why)
    for name in todo & {claim.ASK, claim.KILL}:
        segment_state.wish(folder, name)
    return segment_state.read(folder)
