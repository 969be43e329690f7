"""Says what sharing a machine has cost a run: its restarts, steps done again, and the ways to and from suspensions."""

from collections.abc import Sequence

from backprop.cli.render.json_views import duration
from backprop.scheduler.records import SegmentRecord, SuspensionRecord


def suspended_words(suspensions: Sequence[SuspensionRecord], now_s: float) -> str | None:
    """Return how often and for how long a run was suspended; None for never."""
    if not suspensions:
        return None
    away_s = sum((one.claimed_at_s or one.on_at_s or now_s) - one.left_at_s for one in suspensions)
    times = "once" if len(suspensions) == 1 else f"{len(suspensions)} times"
    return f"{times}, {duration(max(away_s, 0.0))} in all"


def lost_words(segments: Sequence[SegmentRecord], suspensions: Sequence[SuspensionRecord]) -> str | None:
    """Return the seconds that turns have cost a run, and what for; None for nothing."""
    again = [one.first_step_s or one.first_output_s or 0.0 for one in segments[1:]]
    parts = [
        (sum(again), "starting again"),
        (sum(one.cut_cost_s or 0.0 for one in segments), "redone"),
        (sum(one.moving_s for one in suspensions), "to suspend and thaw"),
    ]
    told = [f"{duration(seconds)} {what}" for seconds, what in parts if seconds >= 0.05]
    total = duration(sum(seconds for seconds, _ in parts))
    return f"{total}: {', '.join(told)}" if told else None
