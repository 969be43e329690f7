"""Decides whether a run has waited so long that nothing may pass it any more.

A run that needs much may wait for ever while small ones slip through: each frees a little, and the next small one
takes it. So after half an hour a run is starving and becomes the head of the line: nothing behind it starts until
running runs have ended and left room. That holds only for amounts that our own runs take; they cannot give back heat or
a full disk.
If the run still does not fit once none of ours has been running for a while, other programs have what it waits for: the
others may pass again, and its wait counts anew. Pure.
"""

from collections.abc import Collection
from typing import Final

import msgspec

from backprop.scheduler.governor.model import Denial, Rule

STARVING_S: Final = 1800.0
CLEARS_S: Final = 60.0
"""After the last of our runs has ended, its memory may take seconds to come back, and the one-minute load that long."""

OF_GPUS: Final = frozenset({Rule.VRAM, Rule.EXCLUSIVE, Rule.GPU_COUNT})
AMOUNTS: Final = OF_GPUS | {Rule.PARALLEL, Rule.RAM, Rule.LOAD}


class Wait(msgspec.Struct, frozen=True):
    """What a run waits for. `rules`: the amounts. `since_s`: since when. `excused_s`: when it last did not fit although
    none of our runs was running. Seconds of one clock."""

    rules: frozenset[Rule]
    since_s: float
    excused_s: float | None = None


def amounts(denials: Collection[Denial]) -> frozenset[Rule]:
    """Return what a refused run waits for, of what our own runs take."""
    return AMOUNTS & {denial.rule for denial in denials}


def is_starving(wait: Wait, now_s: float) -> bool:
    """Return whether the run has waited long enough to hold back those behind it."""
    begun_s = wait.since_s if wait.excused_s is None else max(wait.since_s, wait.excused_s)
    return bool(wait.rules) and now_s - begun_s >= STARVING_S


def holding_back_is_futile(alone_for_s: float | None) -> bool:
    """Return whether holding others back cannot help. `alone_for_s`: for how long none of our runs has been running;
    None while one is."""
    return alone_for_s is not None and alone_for_s >= CLEARS_S


def keeps_back(wait: Wait, gpus: int) -> bool:
    """Return whether a later run that needs `gpus` would take what the starving one waits for. A run without a GPU
    would not, as long as GPUs are all that is missing."""
    return gpus > 0 or not wait.rules <= OF_GPUS
