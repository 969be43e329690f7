"""Prints once an hour what the queue and the machine are at: a night's pane tells how it went."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from backprop.scheduler.config.active_hours import parse_all
from backprop.scheduler.governor.model import amount
from backprop.scheduler.governor.snapshot import Gpu, Snapshot
from backprop.scheduler.lifecycle import FINAL, State
from backprop.scheduler.records import RunRecord
from backprop.scheduler.store.reads import nights, pace, queries
from backprop.worker.context import Context

EVERY_S: Final = 3600.0
NAMED: Final = 4
WAITING: Final = (State.QUEUED, State.SUSPENDED, State.HELD)


class Hourly:
    """One per worker. `recent`: returns the last reading of the machine, None if nobody has read it lately."""

    def __init__(self, context: Context, recent: Callable[[], Snapshot | None]) -> None:
        self._context = context
        self._recent = recent
        self._begun_s = context.clock.wall_s()
        self._told_s = context.clock.monotonic_s()

    def begin(self) -> None:
        """Say what waits now. Raises DatabaseBusy."""
        self._context.console.event("queue", more=_waiting(queries.state_counts(self._context.database)))

    def tell_if_due(self, is_closed: bool) -> None:
        """Print the line of this hour, where anything runs or waits for its turn. Raises DatabaseBusy.

        `is_closed`: nothing is started now, and nobody knows for how long.
        """
        context, now_s = self._context, self._context.clock.monotonic_s()
        if now_s - self._told_s < EVERY_S:
            return
        self._told_s = now_s
        live = queries.live_runs(context.database)
        counts = queries.state_counts(context.database)
        if not live and not counts.get(State.QUEUED):
            return
        wall_s = context.clock.wall_s()
        ended = nights.counts(context.database, self._begun_s, wall_s)
        slots, hours = context.settings.max_parallel, parse_all(context.settings.active_hours or ())
        ahead = pace.night(context.database, wall_s, slots, is_closed, hours)
        told = ahead.told
        words = [
            _running(live),
            _waiting(counts),
            done_words(ended, self._begun_s),
            *map(_gpu, gpus.gpus if (gpus := self._recent()) is not None else ()),
            *([f"all by about {clock(wall_s + told.all_s)}"] if told is not None and told.all_s else []),
        ]
        context.console.event("hourly", more="; ".join(word for word in words if word))


def done_words(ended: Mapping[State, int], since_s: float) -> str:
    """Return `28 completed, 2 failed since 22:04`; empty for none. `ended`: runs by state. `since_s`: Unix time."""
    told = ", ".join(f"{ended[state]:,} {state}" for state in State if state in FINAL and ended.get(state))
    return f"{told} since {clock(since_s)}" if told else ""


def clock(at_s: float) -> str:
    """Return a time of day."""
    return time.strftime("%H:%M", time.localtime(at_s))


def _running(live: Sequence[RunRecord]) -> str:
    active = [run for run in live if run.state is not State.SUSPENDED]
    named = [_run(run) for run in active[:NAMED]] + (["…"] if len(active) > NAMED else [])
    return f"{len(active)} running: {', '.join(named)}" if named else "nothing is running"


def _run(run: RunRecord) -> str:
    if run.last_step is None:
        return run.name
    of = f" of {run.step_total:,}" if run.step_total else ""
    loss = "" if run.last_loss is None else f", loss {run.last_loss:.4g}"
    return f"{run.name} ({run.step_unit or 'step'} {run.last_step:,}{of}{loss})"


def _waiting(counts: Mapping[State, int]) -> str:
    told = [f"{counts[state]:,} {state}" for state in WAITING if counts.get(state)]
    return ", ".join(told) or "nothing is queued"


def _gpu(gpu: Gpu) -> str:
    free = "" if gpu.free_mib is None else f" {amount(gpu.free_mib)} free"
    heat = "" if gpu.temp_c is None else f", {gpu.temp_c} °C"
    return f"GPU {gpu.index}{free}{heat}" if free or heat else ""
