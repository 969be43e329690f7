"""Says when runs and the night end, in words. What nobody can tell is a question mark."""

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from backprop.cli.render.box_ends import boxes_left
from backprop.scheduler.config.active_hours import Window, parse_all
from backprop.scheduler.governor.model import Rule
from backprop.scheduler.home.layout import Home
from backprop.scheduler.records import RunRecord, WorkerRecord
from backprop.scheduler.store import drain, parallel
from backprop.scheduler.store.reads import listing, pace, queries
from backprop.scheduler.store.reads.filters import Sort
from backprop.scheduler.store.reads.pace import NightAhead, Pace

if TYPE_CHECKING:
    from backprop.scheduler.store.connection import Database

MORNING_H: Final = 8
DAY_S: Final = 86_400.0
CLOSING: Final = (Rule.HOST, Rule.DRAINED)


def outlook(home: Home, database: "Database", now_s: float) -> NightAhead:
    """Return what is known of the time ahead, with the workers that live. Raises DatabaseBusy."""
    from backprop.worker.executor.locks import worker_alive

    living = [one for one in queries.workers(database) if worker_alive(home.locks, one.id)]
    slots = parallel.in_force(database, living) or 0
    first = next(iter(listing.list_runs(database, sort=Sort.TURN, limit=1)), None)
    hours = hours_of(living)
    closing = CLOSING if hours else (*CLOSING, Rule.HOURS)
    is_closed = first is not None and any(rule.rule in closing for rule in first.waiting)
    left = boxes_left(home, queries.live_runs(database), queries.live_segments(database)[1], now_s)
    is_closed = is_closed or drain.drained(database) is not None
    return pace.night(database, now_s, slots, is_closed, hours, left)


def hours_of(living: Sequence[WorkerRecord]) -> tuple[Window, ...]:
    """Return the hours in which any of the workers starts runs; none for always, or where nobody knows."""
    each = [worker.active_hours for worker in living]
    return () if not all(each) else tuple(window for hours in each for window in parse_all(hours or ()))


def end_words(seen: NightAhead, run_id: str, now_s: float) -> str:
    """Return about when a run ends: `≈03:27`, or `?`."""
    end_s = seen.told.ends.get(run_id) if seen.told is not None else None
    return "?" if end_s is None else f"≈{moment(now_s + end_s, now_s)}"


def night_words(seen: NightAhead, now_s: float) -> str | None:
    """Return `27 of 30 by 08:00, all by ≈09:40 (10:05 at the latest)`; None where there is nothing to say."""
    told = seen.told
    if told is None or not told.ends:
        return None
    morning_s = _morning_s(now_s)
    by = f"{told.ended_by(morning_s - now_s)} of {len(seen.paces)} by {moment(morning_s, now_s)}"
    if told.all_s is None or told.latest_s is None:
        unknown = len(seen.paces) - len(told.ends)
        return f"{by}, all by ? ({unknown} of unknown length)"
    latest = f"{moment(now_s + told.latest_s, now_s)} at the latest, nine times of ten"
    whole = f"all by ≈{moment(now_s + told.all_s, now_s)} ({latest})"
    return whole if now_s + told.all_s <= morning_s else f"{by}, {whole}"


def percent(run: RunRecord, found: Pace | None) -> int | None:
    """Return how much of its steps a run has made; None where it is not known how many there will be."""
    if found is None or not found.total or run.last_step is None:
        return None
    return min(100 * run.last_step // found.total, 100)


def moment(at_s: float, now_s: float) -> str:
    """Return a time of day, with the day where it is further than one away."""
    return time.strftime("%H:%M" if at_s - now_s < DAY_S else "%a %H:%M", time.localtime(at_s))


def _morning_s(now_s: float) -> float:
    """Return the next time that it is eight o'clock."""
    local = time.localtime(now_s)
    later = local.tm_hour >= MORNING_H
    return time.mktime((local.tm_year, local.tm_mon, local.tm_mday + later, MORNING_H, 0, 0, 0, 0, -1))
