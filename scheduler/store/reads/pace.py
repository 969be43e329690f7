"""Reads how fast live and queued runs get on, and what they still have to do: the input of `governor.forecast`."""

import math
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from backprop.scheduler.config.active_hours import Window
from backprop.scheduler.governor.forecast import (
    STEP_SPREAD,
    Forecast,
    forecast,
    median,
    spread_of,
    total_of,
)
from backprop.scheduler.governor.opening import opens_from
from backprop.scheduler.governor.playing import SIBLING_SPREAD, Job
from backprop.scheduler.lifecycle import HOLDS_A_SLOT, State
from backprop.scheduler.records import RunRecord
from backprop.scheduler.spec import NO_TIMEBOX_S
from backprop.scheduler.store import dependencies
from backprop.scheduler.store.connection import Database
from backprop.scheduler.store.dependencies import Link
from backprop.scheduler.store.reads import listing, queries
from backprop.scheduler.store.reads.filters import Sort

MOST_RUNS: Final = 2000
"""Of the queue, in its order; where there are more, nothing is said of its end."""
EARLIER_RUNS: Final = 50
LOOKED_AT: Final = 5000
"""Of the runs that ended last, those that are looked through for runs like the waiting ones."""
LEAST_MEASURED_S: Final = 30.0
"""A step is written some seconds after it was made: of less time than this it would tell a wrong speed."""
LEAST_LEFT: Final = 0.05
"""Of what others took: so much at least is left of a run that has taken as long and still runs."""
_SEGMENTS = """
    SELECT run_id, number, started_at_s, running_s, first_step, first_step_s, ended_at_s IS NULL FROM segments
    WHERE run_id IN (SELECT id FROM runs WHERE state IN ('running', 'paused', 'queued') AND segment > 0
                     ORDER BY priority DESC, turn_s, id LIMIT ?)
    ORDER BY run_id, number"""
_EARLIER = """
    SELECT state, group_name, script, chain_total_s FROM runs WHERE ended_at_s IS NOT NULL
    ORDER BY ended_at_s DESC LIMIT ?"""


class Pace(msgspec.Struct, frozen=True, kw_only=True):
    """How far a run is. `total`: steps that it will make; `total_source`: `event`, `log` or `argv`. `steps_per_s`:
    measured. `restart_s`: from the start of a segment to its first step. `work_s`: running time that it still needs;
    `source` says in words where that is from. None: unknown."""

    total: int | None = None
    total_source: str | None = None
    steps_per_s: float | None = None
    restart_s: float | None = None
    work_s: float | None = None
    spread: float = SIBLING_SPREAD
    source: str | None = None


class NightAhead(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of the time ahead. `paces`: by run. `told`: of the whole queue; None where nobody can say."""

    paces: Mapping[str, Pace]
    told: Forecast | None


class _Piece(msgspec.Struct, frozen=True):
    run_id: str
    number: int
    started_at_s: float
    running_s: float | None
    first_step: int | None
    first_step_s: float | None
    is_alive: bool


def night(
    database: Database,
    now_s: float,
    slots: int,
    is_closed: bool,
    hours: Sequence[Window] = (),
    left: Mapping[str, float | None] | None = None,
) -> NightAhead:
    """Return what is known of the time ahead. `slots`: how many the workers let run at once. `is_closed`: nothing is
    started now, and nobody knows for how long. `hours`: in which runs are started; none for always. `left`: of the
    boxes of live runs, in seconds, as far as it is known."""
    live = [run for run in queries.live_runs(database) if run.state in HOLDS_A_SLOT]
    queued = listing.list_runs(database, sort=Sort.TURN, limit=MOST_RUNS + 1)
    runs = [*live, *queued[:MOST_RUNS]]
    pieces: dict[str, list[_Piece]] = {}
    for run_id, number, started_at_s, running_s, first_step, first_step_s, alive in database.rows(
        _SEGMENTS, MOST_RUNS
    ):
        piece = _Piece(run_id, number, started_at_s, running_s, first_step, first_step_s, bool(alive))
        pieces.setdefault(run_id, []).append(piece)
    measured = {run.id: _measured(run, pieces.get(run.id, []), now_s) for run in runs}
    paces = _with_work(database, runs, measured, pieces, now_s)
    capped = queries.group_room(database)
    waits_for_group = any(run.group_name in capped for run in queued)
    if is_closed or slots < 1 or len(queued) > MOST_RUNS or waits_for_group:
        return NightAhead(paces=paces, told=None)
    # What runs beside runs that wait is what the machine has room for.
    room = min(len(live), slots) if live and queued else slots
    after, left_out = _conditions(dependencies.links_of_waiting(database))
    jobs = [
        _job(
            run, paces[run.id], pieces.get(run.id, []), after.get(run.id, ()), now_s, (left or {}).get(run.id)
        )
        for run in runs
        if run.id not in left_out
    ]
    return NightAhead(paces=paces, told=forecast(jobs, room, opens_from(hours, now_s)))


def _conditions(links: Sequence[tuple[str, Link]]) -> tuple[dict[str, tuple[str, ...]], set[str]]:
    """Return what each waiting run comes after, and those that start only by their user's word, or after a failure that
    nobody expects; and all that wait for these."""
    after: dict[str, tuple[str, ...]] = {}
    out: set[str] = set()
    for run_id, link in links:
        met = dependencies.is_met(link.kind, link.state, link.may_be_done)
        if met:
            continue
        if met is False or link.kind == "fail" or link.state is State.HELD or link.may_be_done:
            out.add(run_id)
        after[run_id] = (*after.get(run_id, ()), link.parent)
    while more := {one for one, parents in after.items() if one not in out and out.intersection(parents)}:
        out |= more
    return after, out


def _measured(run: RunRecord, pieces: Sequence[_Piece], now_s: float) -> Pace:
    """Return the speed over all segments: from the first step of each to the first of the next, or to the last."""
    steps = seconds = 0.0
    starts: list[float] = []
    for at, piece in enumerate(pieces):
        if piece.first_step is None or piece.first_step_s is None:
            continue
        starts.append(piece.first_step_s)
        following = pieces[at + 1].first_step if at + 1 < len(pieces) else run.last_step
        ran_s = now_s - piece.started_at_s if piece.is_alive else piece.running_s
        if following is not None and ran_s is not None and ran_s > piece.first_step_s:
            steps += max(following - piece.first_step, 0)
            seconds += ran_s - piece.first_step_s
    total, source = run.step_total, run.step_source or "event"
    if total is None:
        total, source = total_of(run.spec.argv, run.step_unit), "argv"
    speed = steps / seconds if steps and seconds >= LEAST_MEASURED_S else None
    return Pace(
        total=total,
        total_source=source if total is not None else None,
        steps_per_s=speed,
        restart_s=median(starts),
    )


def _with_work(
    database: Database,
    runs: Sequence[RunRecord],
    measured: Mapping[str, Pace],
    pieces: Mapping[str, Sequence[_Piece]],
    now_s: float,
) -> dict[str, Pace]:
    wholes: dict[object, list[float]] = {}
    restarts: dict[object, list[float]] = {}
    for run in runs:
        pace, kin = measured[run.id], _kin(run)
        if pace.total is not None and pace.steps_per_s is not None:
            wholes.setdefault(kin, []).append(pace.total / pace.steps_per_s)
        if pace.restart_s is not None:
            restarts.setdefault(kin, []).append(pace.restart_s)
    wanted = {_kin(run) for run in runs}
    for state, group, script, taken_s in database.rows(_EARLIER, LOOKED_AT) if wanted else ():
        kin = ("group_name", group) if group is not None else ("script", script)
        if kin in wanted and kin[1] is not None and state == State.COMPLETED.value and taken_s > 0:
            known = wholes.setdefault(kin, [])
            if len(known) < EARLIER_RUNS:
                known.append(taken_s)
    return {
        run.id: _work(
            run, measured[run.id], wholes.get(_kin(run), []), restarts.get(_kin(run), []), pieces, now_s
        )
        for run in runs
    }


def _kin(run: RunRecord) -> tuple[str, str | None]:
    """Return which runs are like it: those of its group, else of its script."""
    return ("group_name", run.group_name) if run.group_name is not None else ("script", run.spec.script)


def _work(
    run: RunRecord,
    pace: Pace,
    wholes: Sequence[float],
    restarts: Sequence[float],
    pieces: Mapping[str, Sequence[_Piece]],
    now_s: float,
) -> Pace:
    restart_s = pace.restart_s if pace.restart_s is not None else median(restarts)
    if pace.total is not None and pace.steps_per_s is not None and run.last_step is not None:
        left = max(pace.total - run.last_step, 0)
        said = {"argv": "its command line", "log": "its output"}.get(pace.total_source or "", "its events")
        source = f"{pace.total} {run.step_unit or 'step'}s from {said}, {pace.steps_per_s:.3g} per second"
        return msgspec.structs.replace(
            pace, work_s=left / pace.steps_per_s, spread=STEP_SPREAD, restart_s=restart_s, source=source
        )
    typical_s = median(wholes)
    if typical_s is None:
        return msgspec.structs.replace(pace, restart_s=restart_s)
    ran_s = sum(
        now_s - piece.started_at_s if piece.is_alive else piece.running_s or 0.0
        for piece in pieces.get(run.id, ())
    )
    count = "another run" if len(wholes) == 1 else f"{len(wholes)} other runs"
    return msgspec.structs.replace(
        pace,
        work_s=max(typical_s - ran_s, LEAST_LEFT * typical_s),
        spread=spread_of(wholes),
        restart_s=restart_s,
        source=f"as long as {count} like it",
    )


def _job(
    run: RunRecord,
    pace: Pace,
    pieces: Sequence[_Piece],
    after: tuple[str, ...],
    now_s: float,
    left_s: float | None,
) -> Job:
    """`left_s`: of its box, None where nobody has looked."""
    box_s = math.inf if run.spec.timebox_s >= NO_TIMEBOX_S else run.spec.timebox_s
    alive = next((piece for piece in pieces if piece.is_alive), None)
    if run.state not in HOLDS_A_SLOT:
        left_s = None
    else:
        if left_s is None:
            left_s = box_s if alive is None else alive.started_at_s + box_s - now_s
        # Past its box, it goes on for the sake of its work; nobody knows how long.
        left_s = left_s if left_s > 0 else math.inf
    return Job(
        id=run.id,
        work_s=pace.work_s,
        spread=pace.spread,
        restart_s=pace.restart_s or 0.0,
        box_s=box_s,
        box_left_s=left_s,
        keeps_turn=run.spec.order == "fifo",
        not_before_s=max(run.not_before_s - now_s, 0.0),
        after=after,
    )
