"""May a run that has waited long keep others from passing it?

A run that needs much may wait for ever while small ones slip through: each frees a little, and the next small one takes
it. So after half an hour it is let past: nothing behind it starts, until what runs of ours have ends and leaves room.
Only for amounts that our own runs take; heat or a full disk is not theirs to give back. If it still does not fit once
none of ours has been running for a while, somebody else has what it waits for: the others pass again, and it counts
anew. Pure.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from backprop.scheduler.governor.model import Denial, Rule

AGED_S: Final = 1800.0
CLEARS_S: Final = 60.0
"""After the last of our runs has ended, its memory may take seconds to come back, and the one-minute load that long."""

OF_GPUS: Final = frozenset({Rule.VRAM, Rule.EXCLUSIVE, Rule.GPU_COUNT})
AMOUNTS: Final = OF_GPUS | {Rule.PARALLEL, Rule.RAM, Rule.LOAD}


@dataclass(frozen=True, slots=True)
class Wait:
    """`rules`: the amounts a run waits for. `since_s`: since when. `excused_s`: when it was last found not to fit
    although none of ours was running."""

    rules: frozenset[Rule]
    since_s: float
    excused_s: float | None = None


def amounts(denials: Collection[Denial]) -> frozenset[Rule]:
    """What a refused run waits for of what our runs take."""
    return AMOUNTS & {one.rule for one in denials}


def is_starving(wait: Wait, now_s: float) -> bool:
    """Whether it has waited long enough to be let past. Seconds of one clock."""
    begun_s = wait.since_s if wait.excused_s is None else max(wait.since_s, wait.excused_s)
    return bool(wait.rules) and now_s - begun_s >= AGED_S


def is_unsatisfiable(alone_for_s: float | None) -> bool:
    """Whether keeping others back cannot help. `alone_for_s`: since when none of ours has been running; None while
    one is."""
    return alone_for_s is not None and alone_for_s >= CLEARS_S


def keeps_back(wait: Wait, gpus: int) -> bool:
    """Whether a later run that needs `gpus` would take what an aged one waits for: a run without a GPU does not, as
    long as GPUs are all that is missing."""
    return gpus > 0 or not wait.rules <= OF_GPUS
