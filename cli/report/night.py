"""Reads everything that a report shows of one span of time, and keeps its books."""

import math
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import msgspec

from backprop.cli.report.axis import Axis
from backprop.cli.report.books import (
    Account,
    Book,
    Reason,
    Slice,
    Span,
    Stay,
    Unit,
    book,
    packed,
    turns,
    without,
)
from backprop.scheduler.home.layout import Home
from backprop.scheduler.lifecycle import FINAL, State
from backprop.scheduler.outcome.segment_outcome import SegmentOutcome
from backprop.scheduler.records import RunRecord, SampleRecord, SegmentRecord, SuspensionRecord
from backprop.scheduler.spec import GroupRules
from backprop.scheduler.store import groups
from backprop.scheduler.store.connection import Database
from backprop.scheduler.store.reads import listing, metrics, nights, queries
from backprop.scheduler.store.reads.filters import Filters
from backprop.worker.maintenance import disk_usage

MOST_RUNS: Final = 2000
"""Of the night's runs those that were there last are read; the counts are of all."""
MOST_NAMED: Final = 200
GAP_S: Final = 60
AT_ONCE_S: Final = 60.0
"""Segments that are claimed within it may be numbered in another order than they begin."""
MEASURE_S: Final = 0.1
LOSS: Final = "loss"
_DAY_S: Final = 86400.0


class Gap(msgspec.Struct, frozen=True):
    """A stretch in which nothing ran on a unit."""

    unit: Unit
    slice: Slice

    @property
    def text(self) -> str:
        mark = f"{self.unit.label}: "
        return "; ".join(one.text.removeprefix(mark) for one in self.slice.reasons)


class Standings(msgspec.Struct, frozen=True):
    """Runs from the best to the worst by the last value of one metric."""

    metric: str
    highest: bool
    places: list[tuple[RunRecord, float]]


class Night(msgspec.Struct, frozen=True):
    """A span of time, Unix seconds.

    `runs`: those with a segment in it, by id, as they are now. `stays`: where its segments lie in the night, one each.
    `failed`, `held`: what may need its user. `whole`: all runs of the span were read.
    """

    home: Home
    since_s: float
    until_s: float
    group: str | None
    axis: Axis
    counts: dict[State, int]
    runs: dict[str, RunRecord]
    segments: list[SegmentRecord]
    stays: list[Stay]
    samples: list[SampleRecord]
    books: list[Book]
    failed: list[RunRecord]
    held: list[RunRecord]
    ranking: Standings
    disk: disk_usage.DiskUse
    whole: bool = True
    gaps: list[Gap] = []

    @property
    def completed(self) -> int:
        return self.counts.get(State.COMPLETED, 0)

    @property
    def ended(self) -> int:
        return sum(self.counts.get(state, 0) for state in FINAL)

    @property
    def unfinished(self) -> int:
        return sum(count for state, count in self.counts.items() if state not in FINAL)

    @property
    def lost_s(self) -> float:
        """Running time whose work was lost when segments ended."""
        return sum(one.total(Account.REDONE) for one in self.books)

    @property
    def trained_s(self) -> float:
        return sum(one.running_s or 0.0 for one in self.segments)


def read_night(database: Database, since_s: float, until_s: float, group: str | None = None) -> Night:
    """Read the span. `group`: of its members alone. Raises DatabaseBusy."""
    axis = Axis(since_s, until_s, nights.clock_changes(database))
    begin_s = min(since_s, axis.earliest_s)
    segments = nights.segments(database, begin_s, until_s, group)
    samples = nights.samples(database, begin_s, until_s)
    newest = list(dict.fromkeys(one.run_id for one in reversed(segments)))
    runs = {run.id: run for run in queries.runs_by_id(database, newest[:MOST_RUNS])}
    counts = nights.counts(database, begin_s, until_s, group)
    failed = nights.failed(database, begin_s, until_s, group, MOST_NAMED) if State.FAILED in counts else []
    stays = _stays(database, segments, axis, nights.suspensions(database, begin_s, until_s))
    places = nights.slots(database, begin_s, until_s)
    books = _books(list(zip(segments, stays, strict=True)), samples, axis, places)
    held = Filters(states=(State.HELD,), group=group)
    rules = groups.rules(database, group) if group is not None else None
    return Night(
        home=database.home,
        since_s=since_s,
        until_s=until_s,
        group=group,
        axis=axis,
        counts=counts,
        runs=runs,
        segments=segments,
        stays=stays,
        samples=samples,
        books=books,
        failed=queries.runs_by_id(database, failed),
        held=listing.list_runs(database, held, limit=MOST_NAMED),
        ranking=_ranking(database, list(runs.values()), rules),
        disk=disk_usage.measure(database.home, MEASURE_S),
        whole=len(newest) <= MOST_RUNS and len(segments) < nights.MOST_SEGMENTS,
        gaps=[
            Gap(one.unit, part)
            for one in books
            for part in one.slices
            if part.account is Account.IDLE and part.seconds >= GAP_S
        ],
    )


def _stays(
    database: Database,
    segments: Sequence[SegmentRecord],
    axis: Axis,
    suspended: Mapping[tuple[str, int], Sequence[SuspensionRecord]],
) -> list[Stay]:
    """Place the segments in the night. They began in this order, which tells apart the times that a clock has twice."""
    lost = [one for one in segments if one.outcome is SegmentOutcome.LOST and one.cut_cost_s is None]
    saves = nights.last_saves(database, lost[-MOST_NAMED:])
    stays: list[Stay] = []
    begun_s = 0.0
    for segment in segments:
        key = (segment.run_id, segment.number)
        stays.append(_stay(segment, axis, begun_s, saves.get(key), suspended.get(key, ())))
        begun_s = stays[-1].from_s - AT_ONCE_S
    return stays


def _books(
    stays: Sequence[tuple[SegmentRecord, Stay]], samples: Sequence[SampleRecord], axis: Axis, places: int
) -> list[Book]:
    """Account for each GPU that was read or used, or else for the `places` of runs."""
    reasons: list[Reason] = []
    at_s = 0.0
    seen: dict[str, Unit] = {}
    for sample in samples:
        at_s = max(axis.at(sample.at_s, at_s), at_s)
        if sample.gpu_uuid is None:
            reasons.append(Reason(at_s, sample.refusals))
        elif sample.gpu_index is not None:
            seen[sample.gpu_uuid] = Unit(sample.gpu_uuid, sample.gpu_index, sample.gpu_name or "")
    for segment, _ in stays:
        for uuid in segment.gpu_uuids:
            seen.setdefault(uuid, Unit(uuid, len(seen), ""))
    units = sorted(seen.values(), key=lambda unit: unit.index)
    if units:
        return [
            book(
                unit,
                [one for segment, stay in stays if unit.uuid in segment.gpu_uuids for one in turns(stay)],
                reasons,
                axis.asleep,
                axis.length_s,
            )
            for unit in units
        ]
    return [
        book(Unit(None, number), place, reasons, axis.asleep, axis.length_s)
        for number, place in enumerate(packed([one for _, stay in stays for one in turns(stay)], places), 1)
    ]


def _stay(
    segment: SegmentRecord,
    axis: Axis,
    not_before_s: float,
    saved_s: float | None,
    suspended: Sequence[SuspensionRecord],
) -> Stay:
    """Place a segment in the night. `saved_s`: when one that was lost had saved for the last time, Unix seconds."""
    from_s = axis.at(segment.started_at_s, not_before_s)
    startup_s, running_s = _startup_s(segment), segment.running_s or 0.0
    if segment.ended_at_s is None:
        to_s = axis.length_s
    else:
        to_s = max(axis.at(segment.ended_at_s, from_s + max(running_s - 1.0, 0.0)), from_s)
        startup_s = min(startup_s, to_s - from_s)
    away, moving = _absences(suspended, axis, from_s, to_s)
    stay = Stay(segment.run_id, from_s, to_s, startup_s, saving_s=segment.saving_s, away=away, moving=moving)
    if segment.ended_at_s is None:
        return stay
    redone_s = segment.cut_cost_s or 0.0
    if segment.outcome is SegmentOutcome.LOST and segment.cut_cost_s is None:
        kept_to_s = from_s + startup_s if saved_s is None else axis.at(saved_s, from_s)
        redone_s = _length_s(without((kept_to_s, to_s), away))
    there_s = _length_s(without((from_s, to_s), [*axis.asleep, *away, *moving]))
    paused_s = there_s - running_s if segment.running_s is not None else 0.0
    return msgspec.structs.replace(stay, paused_s=paused_s if paused_s >= 2 else 0.0, redone_s=redone_s)


def _absences(
    suspended: Sequence[SuspensionRecord], axis: Axis, from_s: float, to_s: float
) -> tuple[tuple[Span, ...], tuple[Span, ...]]:
    """Return when a segment was away, suspended, and when it was on its way there or back."""
    away: list[Span] = []
    moving: list[Span] = []
    at_s = from_s
    for one in suspended:
        steps: list[float] = []
        for wall_s in (one.ordered_at_s, one.left_at_s, one.claimed_at_s, one.on_at_s):
            at_s = to_s if wall_s is None else min(max(axis.at(wall_s, at_s), at_s), to_s)
            steps.append(at_s)
        ordered_s, left_s, claimed_s, on_s = steps
        away.append((left_s, claimed_s))
        moving += [(ordered_s, left_s), (claimed_s, on_s)]
    return tuple(away), tuple(one for one in moving if one[0] < one[1])


def _length_s(spans: Iterable[Span]) -> float:
    return sum(to_s - from_s for from_s, to_s in spans)


def _startup_s(segment: SegmentRecord) -> float:
    return segment.first_step_s or segment.first_output_s or 0.0


def _ranking(database: Database, runs: Sequence[RunRecord], rules: GroupRules | None) -> Standings:
    """Rank by the metric that the group's rules name, else by loss, lowest first."""
    able = [run for run in runs if run.state is not State.FAILED]
    if rules is not None and rules.keep_metric not in (None, LOSS):
        metric = str(rules.keep_metric)
        values = metrics.latest(database, [run.id for run in able], metric)
        highest = rules.keep_highest
    else:
        metric, highest = LOSS, False
        values = {run.id: run.last_loss for run in able if run.last_loss is not None}
    places = [(run, values[run.id]) for run in able if math.isfinite(values.get(run.id, math.nan))]
    places.sort(key=lambda place: (-place[1] if highest else place[1], place[0].id))
    return Standings(metric, highest, places)


def stretch(night: Night, part: Slice) -> str:
    """Return from when to when a slice was, in local time: 01:35 to 01:59, with a dash."""
    return f"{label(night, part.from_s)}–{label(night, part.to_s)}"  # noqa: RUF001


def label(night: Night, at_s: float) -> str:
    """Return the local time of a moment of the night, in seconds since it began: 22:04, of several days Mon 22:04."""
    format_ = "%H:%M" if night.axis.length_s <= _DAY_S else "%a %H:%M"
    return time.strftime(format_, time.localtime(night.axis.wall_s(at_s)))
