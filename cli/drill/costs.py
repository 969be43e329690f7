"""Computes the share of time that a script loses to restarts, and recommends a timebox. Pure."""

from typing import Final

import msgspec

BOXES_MIN: Final = (1, 2, 3, 5, 10, 15, 20, 30, 45, 60, 90, 120, 180, 240, 360, 480, 720)
USUAL_BOX_MIN: Final = 10
FINE_SHARE: Final = 0.05
"""A recommended timebox loses less than this share of its time to restarts."""


class Costs(msgspec.Struct, frozen=True, kw_only=True):
    """What a segment costs beside its work, in seconds. `gap_s`: between saves, None if unknown."""

    ready_s: float
    save_s: float
    saves_when_asked: bool
    gap_s: float | None


def lost_share(costs: Costs, box_s: float) -> float:
    """Return the share of a segment's time that is lost, from 0 to 1; 1 when no save fits.

    Lost are startup and save and, for a script that cannot be asked to save, the work after its last save.
    """
    if costs.saves_when_asked or costs.gap_s is None:
        spent_s = costs.ready_s + costs.save_s
        return min(spent_s / max(box_s + costs.save_s, spent_s), 1.0) if spent_s else 0.0
    saves = int(max(box_s - costs.ready_s, 0.0) // costs.gap_s) if costs.gap_s else 0
    work_s = saves * costs.gap_s
    # Past half of the timebox, a segment ends right after the last save that fits; before that it runs to the end.
    ended_s = max(costs.ready_s + work_s, box_s / 2) if saves else box_s
    ended_s = box_s if ended_s > costs.ready_s + work_s else ended_s
    return 1 - work_s / (ended_s + costs.save_s) if ended_s + costs.save_s else 0.0


def recommended_min(costs: Costs) -> tuple[int, int]:
    """Return (the timebox to use, the shortest that loses little), in minutes. The first is not below `USUAL_BOX_MIN`
    without need."""
    shares = {box: lost_share(costs, box * 60) for box in BOXES_MIN}
    fine = [box for box, share in shares.items() if share <= FINE_SHARE]
    least = fine[0] if fine else min(BOXES_MIN, key=lambda box: (round(shares[box], 3), box))
    return next((box for box in fine if box >= USUAL_BOX_MIN), least), least
