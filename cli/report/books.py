"""Keeps the books of a night: each second of each GPU is in exactly one account, so that they add up to the night.

On a machine without a GPU the places for runs take their part. Pure: intervals in, accounts out, in whole seconds.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from enum import StrEnum
from itertools import pairwise
from typing import Final, TypeVar

import msgspec

from backprop.scheduler.records import Refusal

SPEAKS_S: Final = 345.0
"""So long a sample speaks for what came after it: a resting worker takes one every five minutes."""
HANDOVER_S: Final = 30
"""A shorter gap between two segments is the change from one to the other."""


class Account(StrEnum):
    """Where a second went. Where runs share a GPU, the first of these that holds."""

    TRAINING = "training"
    STARTUP = "start-up"
    SAVING = "saving"
    SUSPENSION = "suspend/thaw"
    REDONE = "redone"
    PAUSED = "paused"
    ASLEEP = "asleep"
    IDLE = "idle"


NO_WORKER: Final = Refusal("no worker", "no worker was at work")
NOT_RECORDED: Final = Refusal("not recorded", "nobody recorded why")
HANDOVER: Final = Refusal("handover", "from one segment to the next")


Span = tuple[float, float]
"""From when to when, in seconds since the night began."""


class Unit(msgspec.Struct, frozen=True):
    """What is counted: a GPU, or a place for a run where there is none. `uuid` None: such a place."""

    uuid: str | None
    index: int
    name: str = ""

    @property
    def label(self) -> str:
        return f"GPU {self.index}" if self.uuid is not None else f"slot {self.index}"


class Stay(msgspec.Struct, frozen=True):
    """A segment on a unit, in seconds since the night began. `startup_s`: until its first step. `paused_s`: frozen.
    `redone_s`: at its end, work that was lost with it. `saving_s`: for its saves, as far as that is known. `away`: when
    it was suspended, and others had its place. `moving`: when it was on its way there or back."""

    run_id: str
    from_s: float
    to_s: float
    startup_s: float = 0.0
    paused_s: float = 0.0
    redone_s: float = 0.0
    saving_s: float = 0.0
    away: tuple[Span, ...] = ()
    moving: tuple[Span, ...] = ()


class Reason(msgspec.Struct, frozen=True):
    """Why the head of the queue did not start from `at_s` on. `refusals` None: nobody noted it."""

    at_s: float
    refusals: tuple[Refusal, ...] | None


class Slice(msgspec.Struct, frozen=True):
    """A stretch that belongs to one account. `reasons`: of an idle one."""

    from_s: int
    to_s: int
    account: Account
    reasons: tuple[Refusal, ...] = ()

    @property
    def seconds(self) -> int:
        return self.to_s - self.from_s

    @property
    def rules(self) -> tuple[str, ...]:
        return tuple(one.rule for one in self.reasons)


class Book(msgspec.Struct, frozen=True):
    """The slices of one unit, without a gap from 0 to the length of the night."""

    unit: Unit
    slices: tuple[Slice, ...]

    def total(self, account: Account) -> int:
        return sum(one.seconds for one in self.slices if one.account is account)

    @property
    def busy_share(self) -> float:
        """The share of the time in which a run was there."""
        length = sum(one.seconds for one in self.slices)
        away = self.total(Account.IDLE) + self.total(Account.ASLEEP)
        return 1 - away / length if length else 0.0


def book(
    unit: Unit,
    stays: Sequence[Stay],
    reasons: Sequence[Reason],
    asleep: Sequence[tuple[float, float]],
    length_s: float,
) -> Book:
    """Account for one unit. `reasons`: in the order of time."""
    length = max(round(length_s), 0)
    nights = [(_whole(begin, length), _whole(end, length)) for begin, end in asleep]
    parts = [(begin, end, Account.ASLEEP) for begin, end in nights]
    for stay in stays:
        parts += _parts(stay, nights)
    slices: list[Slice] = []
    for begin, end, account in _flattened(parts, length):
        if account is Account.IDLE:
            slices += _explained(begin, end, unit, reasons, length)
        else:
            slices.append(Slice(begin, end, account))
    return Book(unit, tuple(_merged(slices)))


def turns(stay: Stay) -> list[Stay]:
    """Divide a stay at its suspensions: it starts up in its first turns, and what it lost was done in its last."""
    if not stay.away:
        return [stay]
    spans = without((stay.from_s, stay.to_s), stay.away)
    left = [to_s - from_s for from_s, to_s in spans]
    startups = _taken(stay.startup_s, left, range(len(left)))
    redone = _taken(stay.redone_s, left, reversed(range(len(left))))
    paused = _taken(stay.paused_s, left, reversed(range(len(left))))
    saving = _taken(stay.saving_s, left, reversed(range(len(left))))
    return [
        Stay(
            stay.run_id, from_s, to_s, startups[at], paused[at], redone[at], saving[at],
            moving=tuple(one for one in stay.moving if from_s <= one[0] < to_s),
        )
        for at, (from_s, to_s) in enumerate(spans)
    ]  # fmt: skip


def _taken(seconds: float, left: list[float], order: Iterable[int]) -> list[float]:
    """Take seconds out of what is `left` of each turn, in this order of turns; return how many of each."""
    found = [0.0] * len(left)
    for at in order:
        found[at] = min(max(seconds, 0.0), left[at])
        seconds -= found[at]
        left[at] -= found[at]
    return found


def packed(stays: Sequence[Stay], least: int) -> list[list[Stay]]:
    """Spread stays over as few places as they need, at least `least`."""
    places: list[list[Stay]] = [[] for _ in range(least)]
    for stay in sorted(stays, key=lambda one: one.from_s):
        free = next((place for place in places if not place or place[-1].to_s <= stay.from_s), None)
        if free is None:
            places.append(free := [])
        free.append(stay)
    return places


def _whole(at_s: float, length: int) -> int:
    return min(max(round(at_s), 0), length)


def _parts(stay: Stay, asleep: Sequence[tuple[int, int]]) -> Iterator[tuple[int, int, Account]]:
    """Cut a stay into its accounts: it starts up, trains, saves, was paused, and what it did last was lost. When it
    saved and was paused is not known; how long is. Sleeps of the machine come in between and count for none of them."""
    begin, end = round(stay.from_s), max(round(stay.to_s), round(stay.from_s))
    moving = [(max(round(first), begin), min(round(last), end)) for first, last in stay.moving]
    for span in moving:
        yield from ((first, last, Account.SUSPENSION) for first, last in without(span, asleep))
    awake = without((begin, end), [*asleep, *moving])
    left = sum(last - first for first, last in awake)
    amounts: dict[Account, int] = {}
    wanted = (
        (Account.STARTUP, stay.startup_s),
        (Account.PAUSED, stay.paused_s),
        (Account.REDONE, stay.redone_s),
        (Account.SAVING, stay.saving_s),
    )
    for account, seconds in wanted:
        amounts[account] = min(max(round(seconds), 0), left)
        left -= amounts[account]
    amounts[Account.TRAINING] = left
    order = [Account.STARTUP, Account.TRAINING, Account.SAVING, Account.PAUSED, Account.REDONE]
    for first, last in awake:
        while first < last and order:
            taken = min(amounts[order[0]], last - first)
            if taken:
                yield first, first + taken, order[0]
            first += taken
            amounts[order[0]] -= taken
            if amounts[order[0]] == 0:
                order.pop(0)


N = TypeVar("N", int, float)


def without(span: tuple[N, N], taken: Sequence[tuple[N, N]]) -> list[tuple[N, N]]:
    """Return what is left of an interval once others are taken out of it."""
    begin, end = span
    left: list[tuple[N, N]] = []
    for first, last in sorted(taken):
        if first > begin and first < end:
            left.append((begin, first))
        begin = max(begin, min(last, end)) if first < end else begin
    return [*left, (begin, end)] if begin < end else left


def _flattened(parts: Sequence[tuple[int, int, Account]], length: int) -> Iterator[tuple[int, int, Account]]:
    """Yield which account each stretch of the night belongs to; idle where there is no part."""
    changes: dict[int, list[tuple[Account, int]]] = {0: [], length: []}
    for begin, end, account in parts:
        begin, end = min(max(begin, 0), length), min(max(end, 0), length)
        if begin < end:
            changes.setdefault(begin, []).append((account, 1))
            changes.setdefault(end, []).append((account, -1))
    here: Counter[Account] = Counter()
    times = sorted(changes)
    for begin, end in pairwise(times):
        for account, more in changes[begin]:
            here[account] += more
        yield begin, end, next((account for account in Account if here[account] > 0), Account.IDLE)


def _explained(begin: int, end: int, unit: Unit, reasons: Sequence[Reason], length: int) -> Iterator[Slice]:
    """Cut an idle stretch where its reason changes."""
    if begin > 0 and end < length and end - begin <= HANDOVER_S:
        yield Slice(begin, end, Account.IDLE, (HANDOVER,))
        return
    at = begin
    first_told = bisect_left(reasons, begin - SPEAKS_S, key=lambda one: one.at_s)
    for number, reason in enumerate(reasons[first_told:], first_told):
        if reason.at_s >= end:
            break
        over_s = reason.at_s + SPEAKS_S
        if number + 1 < len(reasons):
            over_s = min(over_s, reasons[number + 1].at_s)
        first, last = max(round(reason.at_s), at), min(round(over_s), end)
        if last <= first:
            continue
        if first > at:
            yield Slice(at, first, Account.IDLE, (NO_WORKER,))
        yield Slice(first, last, Account.IDLE, _of_unit(reason, unit))
        at = last
    if at < end:
        yield Slice(at, end, Account.IDLE, (NO_WORKER,))


def _of_unit(reason: Reason, unit: Unit) -> tuple[Refusal, ...]:
    if not reason.refusals:
        return (NOT_RECORDED,)
    own = tuple(one for one in reason.refusals if unit.uuid is None or one.gpu_index in (None, unit.index))
    return own or reason.refusals


def _merged(slices: Sequence[Slice]) -> Iterator[Slice]:
    """Join neighbours that are alike; of idle ones the first tells the amounts."""
    last: Slice | None = None
    for one in slices:
        if last is not None and (last.account, last.rules) == (one.account, one.rules):
            last = Slice(last.from_s, one.to_s, last.account, last.reasons)
            continue
        if last is not None:
            yield last
        last = one
    if last is not None:
        yield last
