"""Attends to the live segments of a worker that are jobs of clusters: waiting ones, running ones, and their ends.

What is read of a segment's files is read as of any other. What needs its processes is left out: heat, hangs, pauses and
suspensions are for this machine; on a node the timebox and the cluster's own limits hold.
"""

import contextlib
from collections.abc import Callable, Sequence
from typing import Final

from backprop.scheduler.lifecycle import State
from backprop.scheduler.outcome.job_end import JobEnd
from backprop.scheduler.records import RunRecord, SegmentRecord
from backprop.scheduler.store import clusters
from backprop.scheduler.store.reads import queries
from backprop.scheduler.store.writes import claims
from backprop.worker.context import Context
from backprop.worker.executor.base import Life
from backprop.worker.executor.segment_files import ExitRecord
from backprop.worker.segments.finalize import FinishedSegment, segment_of
from backprop.worker.segments.jobs.ends import job_end
from backprop.worker.segments.live import LiveSegment

NOTE_EVERY_S: Final = 5.0
"""How often the state of a cluster is written for others to read, at most."""

Finish = Callable[
    [LiveSegment, RunRecord, SegmentRecord, ExitRecord | None, JobEnd | None], FinishedSegment | None
]


class ClusterJobs:
    """`live`: returns what is remembered of a live segment. `finish`: judges its end."""

    def __init__(self, context: Context, live: Callable[[RunRecord], LiveSegment], finish: Finish) -> None:
        self._context = context
        self._live = live
        self._finish = finish
        self._noted_s: dict[str, float] = {}

    def begin_tick(self, runs: Sequence[RunRecord]) -> None:
        """Take in what the clusters have answered. `runs`: the live ones of this worker. Raises DatabaseBusy."""
        context = self._context
        elsewhere = [run for run in runs if run.cluster is not None]
        if not elsewhere and not context.clusters.live:
            return
        for run in elsewhere:
            context.clusters.of(run.cluster or "", run.spec.share)
        tokens: dict[str, set[str]] = {name: set() for name in context.clusters.live}
        for run in elsewhere:
            segment = queries.segment(context.database, run.id, run.segment)
            if segment is not None and segment.token is not None:
                tokens[run.cluster or ""].add(segment.token)
        for name, executor in context.clusters.live.items():
            answers = executor.take_answers()
            executor.forget(tokens[name])
            now_s = context.clock.monotonic_s()
            if answers or now_s - self._noted_s.get(name, -NOTE_EVERY_S) >= NOTE_EVERY_S:
                self._noted_s[name] = now_s
                self._note(name)

    def attend(self, run: RunRecord) -> FinishedSegment | None:
        """Attend to one live run; return its end once that has come. Raises LostRace, DatabaseBusy, OSError."""
        context, live = self._context, self._live(run)
        cluster = context.clusters.of(run.cluster or "", run.spec.share)
        segment = segment_of(context, run)
        if run.intent is not None and run.state is State.SUBMITTED:
            cluster.withdraw(segment, run.intent_why or "withdrawn")
        look = cluster.look(run, segment)
        if look.has_begun and run.state is State.SUBMITTED:
            # By this clock: no two machines' are compared.
            claims.begun(context.database, run, context.clock.wall_s(), look.node, look.job)
            context.console.event("began", run, f"segment {run.segment} on {look.node}, job {look.job}")
            run = queries.run_by_id(context.database, run.id) or run
            segment = segment_of(context, run)
        if look.words and (look.words != segment.engine_words or look.job != segment.job):
            claims.note_job(context.database, run, look.job, look.words)
        life = look.verdict.life
        if life in (Life.ENDED, Life.LOST):
            end = job_end(look)
            return self._finish(live, run, segment, look.exit, end)
        if run.state is State.SUBMITTED:
            return None
        live.observe(run, segment)
        if run.intent is not None:
            cluster.ask(segment)
            live.say_asked(run)
        with contextlib.suppress(OSError):
            live.read_events(run, segment)
        if run.intent is None and (end := live.early_end(run)) is not None:
            claims.ask_to_end(context.database, run, *end)
        return None

    def _note(self, name: str) -> None:
        executor, context = self._context.clusters.live[name], self._context
        now_s, wall_s = context.clock.monotonic_s(), context.clock.wall_s()
        closure, submitter = executor.closure, executor.submitter
        closed = closure if closure is not None and closure.until_s > now_s else None
        why, until_s = (None, None) if closed is None else (closed.why, wall_s + closed.until_s - now_s)
        if closed is None and submitter.silent_since_s is not None:
            why = "its scheduler does not answer"
        answered_s = submitter.answered_s
        snapshot = submitter.snapshot
        clusters.note(
            context.database,
            name,
            why=why,
            now_s=wall_s,
            until_s=until_s,
            answered_at_s=wall_s - (now_s - answered_s) if answered_s is not None else None,
            jobs=len(snapshot.jobs) if snapshot is not None else None,
        )
