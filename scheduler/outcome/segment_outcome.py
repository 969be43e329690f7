"""Names the ways in which a segment ends. On the path of every `backprop run`, so without dataclasses."""

from enum import StrEnum

from backprop.scheduler.faults.kinds import Fault


class SegmentOutcome(StrEnum):
    """How a segment ended. The values are stored, and shown as `outcome`."""

    COMPLETED = "completed"
    FAILED = "failed"
    TIMEBOXED = "timeboxed"
    TEMPFAIL = "tempfail"
    STOPPED = "stopped"
    YIELDED = "yielded"
    OUTRANKED = "outranked"
    OVER_LIMIT = "over its limit"
    NAN = "NaN loss"
    HUNG = "hung"
    STARTED_OVER = "started over"
    GPU_MEMORY = "out of GPU memory"
    NOT_STARTED = "not started"
    LOST = "lost"
    RECOVERED = "recovered"
    """Its end is known from its folder only: the database had forgotten it."""

    @property
    def trained(self) -> bool:
        """Whether the run was able to train in the segment."""
        return self not in (SegmentOutcome.LOST, SegmentOutcome.NOT_STARTED)

    @property
    def fault(self) -> Fault | None:
        """The fault that the outcome implies; None if it implies none."""
        match self:
            case SegmentOutcome.NAN:
                return Fault.NAN
            case SegmentOutcome.HUNG:
                return Fault.HUNG
            case SegmentOutcome.STARTED_OVER:
                return Fault.STARTED_OVER
            case SegmentOutcome.GPU_MEMORY:
                return Fault.GPU_MEMORY
            case _:
                return None
