"""Collects what the frame of `backprop top` shows: of the database, the machine and the workers. Changes nothing."""

import shutil
import sys
import time
from typing import TYPE_CHECKING, Final

from backprop.cli.render import outlook, run_rows
from backprop.cli.render.glyphs import glyphs_of
from backprop.cli.render.machine_view import GpuView, Overview
from backprop.cli.render.screen import EventLine, GpuLine, RunLine, Screen, draw
from backprop.cli.render.watch import takes_colours
from backprop.scheduler.lifecycle import HOLDS_A_SLOT, State
from backprop.scheduler.outcome.segment_outcome import SegmentOutcome
from backprop.scheduler.store.reads import listing, recent
from backprop.scheduler.store.reads.filters import Sort

if TYPE_CHECKING:
    from backprop.scheduler.records import RunRecord
    from backprop.scheduler.store.connection import Database
    from backprop.scheduler.store.reads.pace import NightAhead

HISTORY_S: Final = 3600.0
MOST_QUEUED: Final = 60
MOST_EVENTS: Final = 8
AGAIN: Final = (SegmentOutcome.TIMEBOXED, SegmentOutcome.YIELDED, SegmentOutcome.OUTRANKED)


def frame(shown: Overview, database: "Database | None", no_worker: str) -> list[str]:
    """Return the frame for the terminal as it is now, plain where it is none. `no_worker`: said where none lives."""

    width, height = shutil.get_terminal_size()
    colour = takes_colours()
    glyphs = glyphs_of(getattr(sys.stdout, "encoding", None))
    # The last line stays free: a line break there would scroll.
    return draw(_screen(shown, database, time.time(), no_worker), width, max(height - 1, 4), glyphs, colour)


def _screen(shown: Overview, database: "Database | None", now_s: float, no_worker: str) -> Screen:
    host = shown.snapshot.host
    load = "" if host.load_1m is None else f"load {host.load_1m:.1f}/{host.cores}"
    ram = "" if host.ram_free_mib is None else f"{host.ram_free_mib / 1024:.1f} GiB RAM free"
    words = " · ".join(word for word in (ram, load) if word)
    notes = [
        *([] if shown.workers else [no_worker]),
        *([shown.closed] if shown.closed else []),
        *shown.warnings,
    ]
    history = recent.busy(database, now_s - HISTORY_S) if database is not None else {}
    gpus = [_gpu(view, history.get(view.gpu.uuid, [])) for view in shown.gpus]
    counts = [(state.value, shown.counts[state]) for state in _ORDER if shown.counts.get(state)]
    if database is None:
        return Screen(now_s, counts, gpus, [], [], 0, [], notes=notes, host=words)
    ahead = outlook.outlook(shown.home, database, now_s)
    queued = listing.list_runs(database, sort=Sort.TURN, limit=MOST_QUEUED)
    curves = recent.curves(database, [run.id for run in (*shown.live, *queued)])
    live: list[RunLine] = []
    for run in shown.live:
        if run.state not in HOLDS_A_SLOT:
            continue  # a suspended run is among those whose turn comes
        left_s = shown.left.get(run.id)
        share = None if left_s is None else 1 - left_s / run.spec.timebox_s
        where = "no box" if left_s is None else f"{run_rows.clock_face(left_s)} left"
        live.append(_run(run, ahead, curves.get(run.id, []), now_s, where, share))
    return Screen(
        now_s,
        counts,
        gpus,
        live,
        [
            _run(run, ahead, curves.get(run.id, []), now_s, f"next {at}", None)
            for at, run in enumerate(queued, 1)
        ],
        shown.counts.get(State.QUEUED, 0),
        [_event(one) for one in recent.ended(database, MOST_EVENTS)],
        outlook.night_words(ahead, now_s),
        notes,
        words,
    )


_ORDER: Final = (
    State.RUNNING,
    State.PAUSED,
    State.QUEUED,
    State.HELD,
    State.COMPLETED,
    State.FAILED,
    State.TIMEBOXED,
    State.STOPPED,
)


def _run(
    run: "RunRecord", ahead: "NightAhead", curve: list[float], now_s: float, where: str, share: float | None
) -> RunLine:
    eta = outlook.end_words(ahead, run.id, now_s) if ahead.told is not None else ""
    return RunLine(
        name=run.name,
        state=run.state.value,
        segment=run.segment,
        where=where,
        box_share=share,
        step="-" if run.last_step is None else f"{run.last_step:,}",
        percent=outlook.percent(run, ahead.paces.get(run.id)),
        loss=run_rows.loss(run),
        curve=curve,
        eta=eta,
    )


def _gpu(view: GpuView, history: list[int]) -> GpuLine:
    gpu = view.gpu
    known = gpu.free_mib is not None and gpu.total_mib is not None
    return GpuLine(
        index=gpu.index,
        name=gpu.name,
        utilisation_pct=gpu.utilisation_pct,
        used_mib=(gpu.total_mib or 0) - (gpu.free_mib or 0) if known else None,
        total_mib=gpu.total_mib,
        temp_c=gpu.temp_c,
        limit_c=view.limit_c,
        history=history,
    )


def _event(one: recent.EndedSegment) -> EventLine:
    kind = "good" if one.outcome == SegmentOutcome.COMPLETED else "again" if one.outcome in AGAIN else "bad"
    took = "" if one.running_s is None else f", {run_rows.clock_face(one.running_s)}"
    step = "" if one.last_step is None else f", step {one.last_step:,}"
    return EventLine(one.at_s, one.name, kind, f"{one.outcome}: segment {one.number}{took}{step}")
