"""Collects what the frame of `backprop top` shows: of the database, the machine and the workers. Changes nothing."""

import shutil
import sys
import time
from typing import TYPE_CHECKING, Final

from backprop.cli.live.screen import EMPTY, EventLine, GpuLine, RunLine, Screen, draw
from backprop.cli.live.watch import takes_colours
from backprop.cli.render import outlook, run_rows
from backprop.cli.render.glyphs import glyphs_of
from backprop.cli.render.machine_view import GpuView, Overview
from backprop.scheduler.lifecycle import HOLDS_A_SLOT, State
from backprop.scheduler.outcome.segment_outcome import SegmentOutcome
from backprop.scheduler.store.reads import listing, recent
from backprop.scheduler.store.reads.filters import Filters, Sort, with_states

if TYPE_CHECKING:
    from backprop.scheduler.records import RunRecord
    from backprop.scheduler.store.connection import Database
    from backprop.scheduler.store.reads.pace import NightAhead

HISTORY_S: Final = 3600.0
MOST_QUEUED: Final = 60
MOST_EVENTS: Final = 8
WAITING: Final = (State.QUEUED, State.SUSPENDED)
AGAIN: Final = (SegmentOutcome.TIMEBOXED, SegmentOutcome.YIELDED, SegmentOutcome.OUTRANKED)


def frame(shown: Overview, database: "Database | None", no_worker: str, hint: str | None = None) -> list[str]:
    """Return the frame for the terminal as it is now, plain where it is none. `no_worker`: said where none lives.
    `hint`: for the lowest line of the terminal."""

    width, height = shutil.get_terminal_size()
    # The last line stays free: a line break there would scroll.
    room = max(height - 1, 4)
    colour = takes_colours()
    glyphs = glyphs_of(getattr(sys.stdout, "encoding", None))
    lines = draw(picture(shown, database, no_worker), width, room, glyphs, colour)
    if hint is None:
        return lines
    below = hint[:width]
    return [*lines, *[""] * (room - len(lines)), f"\x1b[2m{below}\x1b[0m" if colour else below]


def picture(
    shown: Overview,
    database: "Database | None",
    no_worker: str,
    name: str | None = None,
    most: int = MOST_QUEUED,
) -> Screen:
    """Return what is drawn. `no_worker`: said where none lives. `name`: a pattern, for runs with such a name alone.
    `most`: how many of the next runs to read. Raises DatabaseBusy."""
    now_s = time.time()
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
    filters = listing.looked_up(database, Filters(name=name))
    queued = listing.list_runs(database, filters, Sort.TURN, limit=most)
    # A suspended run is among those whose turn comes.
    waiting = sum(shown.counts.get(state, 0) for state in WAITING)
    running = [run for run in shown.live if run.state in HOLDS_A_SLOT]
    if name is not None:
        waiting = listing.count(database, with_states(filters, WAITING), waiting)
        named = {one.id for one in listing.list_runs(database, with_states(filters, tuple(HOLDS_A_SLOT)))}
        running = [run for run in running if run.id in named]
    curves = recent.curves(database, [run.id for run in (*running, *queued)])
    live: list[RunLine] = []
    for run in running:
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
            _run(run, ahead, curves.get(run.id, []), now_s, f"next {at}" if name is None else "waits", None)
            for at, run in enumerate(queued, 1)
        ],
        waiting,
        [_event(one) for one in recent.ended(database, MOST_EVENTS)],
        outlook.night_words(ahead, now_s),
        notes,
        words,
        EMPTY if name is None else f"no running or waiting run has a name like {name}",
    )


_ORDER: Final = (
    State.RUNNING,
    State.PAUSED,
    State.QUEUED,
    State.SUSPENDED,
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
        id=run.id,
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
