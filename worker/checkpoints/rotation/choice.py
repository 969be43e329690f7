"""Chooses which checkpoints of a run may go, because newer good ones of their series are there. Pure.

A series is what differs by its step alone: `checkpoint-500` and `checkpoint-1000`. Of each, the newest good ones stay,
and the best by a metric. What belongs to no series stays: `best.pt`, `final.pt`, the files of ranks, shards and folds.
"""

import re
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import PurePath
from typing import Final

import msgspec

from backprop.scheduler.records import CheckpointRecord

_STEP_WORDS: Final = (
    r"(?:global_?)?steps?|epochs?|ep|iter(?:ation)?s?|checkpoints?|ckpt|updates?|rounds?|batch(?:es)?"
)
_AFTER_WORD: Final = re.compile(rf"((?<![a-z])(?:{_STEP_WORDS})[-_=.]?)\d+(?![\d])", re.IGNORECASE)
_PLURAL: Final = re.compile(
    r"(?<![a-z])(?:ranks?|shards?|parts?|folds?|seeds?|splits?|trials?|workers?|gpus?|[mtpd]p)(?:_rank)?[-_=.]?#|-of-",
    re.IGNORECASE,
)
"""Numbers that tell parts or trainings apart, not moments of one."""


class Keeping(msgspec.Struct, frozen=True):
    """What stays of a series: the `newest` good ones, and the best by `metric`. `highest`: the best is the highest
    value. `named`: its user named the metric, so that nothing goes before it has a value."""

    newest: int
    metric: str = "loss"
    highest: bool = False
    named: bool = False


class Judgement(msgspec.Struct, frozen=True):
    """`stays`: why a checkpoint stays, in words; None for one that may go. `enough`: so many newer ones of its series
    are good that it need not be there."""

    record: CheckpointRecord
    stays: str | None
    enough: bool


def series_of(record: CheckpointRecord) -> str | None:
    """Return what a checkpoint's path has in common with others of its series; None where it belongs to none."""
    path = PurePath(record.path)
    name = _AFTER_WORD.sub(r"\1#", path.name)
    if record.step is not None:
        name = re.sub(rf"(?<![a-zA-Z0-9.])0*{record.step}(?![0-9])(?!\.\d)", "#", name)
    if record.is_dir and path.name.isdecimal():
        name = "#"
    return str(path.parent / name) if "#" in name and _PLURAL.search(name) is None else None


def surplus(saved: Sequence[CheckpointRecord], keeping: Keeping) -> list[CheckpointRecord]:
    """Return those of which enough newer ones are on record. `saved`: newest first, each path once."""
    return [
        record
        for series, members in _by_series(saved)
        if series is not None
        for record in members[keeping.newest :]
    ]


def choose(
    saved: Sequence[CheckpointRecord],
    faults: Mapping[str, str],
    protected: Mapping[str, str],
    keeping: Keeping,
    values: Sequence[tuple[float, float]],
) -> list[Judgement]:
    """Judge each of a run's checkpoints.

    `saved`: those that count, newest first, each path once. `faults`: why one is not as good as it was when it was
    saved, by path. `protected`: why one has to stay, by path. `values`: of the metric, as (Unix seconds, value), oldest
    first.
    """
    verdicts: list[Judgement] = []
    unvalued = f"no value of {keeping.metric} is known yet" if keeping.named and not values else None
    for series, members in _by_series(saved):
        good = [record for record in members if record.path not in faults]
        newest = {record.path for record in good[: keeping.newest]}
        best = {record.path for record in best_of(good, keeping, values)}
        for record in members:
            stays = _why_stays(record, series, newest, best, keeping) or faults.get(record.path)
            stays = stays or protected.get(record.path) or unvalued
            verdicts.append(Judgement(record, stays, len(newest - {record.path}) == keeping.newest))
    return verdicts


def best_of(
    good: Sequence[CheckpointRecord], keeping: Keeping, values: Sequence[tuple[float, float]]
) -> list[CheckpointRecord]:
    """Return the best by the value reported before each was saved, and the best by the first one after: some trainers
    evaluate before they save, some after. Of those beside one value the nearest to it counts."""
    times, sign = [at_s for at_s, _ in values], -1.0 if keeping.highest else 1.0
    best: list[CheckpointRecord] = []
    for before in (True, False):
        ranked = [
            (sign * values[at][1], -rank if before else rank, record)
            for rank, record in enumerate(good)
            if 0 <= (at := bisect_right(times, record.mtime_ns / 1e9) - before) < len(values)
        ]
        best += [min(ranked)[2]] if ranked else []
    return best


def _by_series(saved: Sequence[CheckpointRecord]) -> list[tuple[str | None, list[CheckpointRecord]]]:
    keyed = sorted(((series_of(record), record) for record in saved), key=lambda each: each[0] or "")
    return [
        (series or None, [record for _, record in members])
        for series, members in groupby(keyed, key=lambda each: each[0] or "")
    ]


def _why_stays(
    record: CheckpointRecord, series: str | None, newest: set[str], best: set[str], keeping: Keeping
) -> str | None:
    if series is None:
        return "no step in its name tells it from others of its kind"
    if record.path in newest:
        return f"one of the newest {keeping.newest}"
    return f"best by {keeping.metric}" if record.path in best else None
