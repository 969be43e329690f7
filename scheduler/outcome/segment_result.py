"""Describes how a segment ended, and what its run had done by then."""

import msgspec

from backprop.scheduler.lifecycle import Intent
from backprop.scheduler.outcome.job_end import JobEnd


class SegmentResult(msgspec.Struct, frozen=True):
    """How one segment ended.

    `asked`: what the leader had been signalled for before it exited; None if it exited by itself.
    `wanted`: what was recorded but perhaps never delivered. `exit_code` is None when a signal ended the leader
    or nobody saw it end. `lost`: no process is left and no exit record was written.
    `told`: it exited 0 by itself after `should_stop()` had told it to stop. `shown_end`: what in its output shows that
    it had finished, in words, where it exited 0 after it was asked or told to stop.
    `could_not_start`: why the leader never ran. `passing`: the machine's fault, not the run's. `missing`: a path
    that it was to be started with was away.
    `out_of_memory`: the line of its log that reports that GPU memory ran out. `cut_cost_s`: running time between
    its newest good checkpoint and the signal that ended it; None where none was sent. `unreadable`: the file that would
    tell how it ended, and why it cannot be read. `port_in_use`: the line of its log that reports a taken port.
    `disk_full`: its log could take nothing more. `boxes`: the timeboxes that it had begun. `suspended`: it was
    suspended when it was lost. `hung`: it was asked to end because it hung. `job`: how the job ended that it was on
    a cluster; `by_engine`: the cluster had it end.
    """

    asked: Intent | None = None
    wanted: Intent | None = None
    exit_code: int | None = None
    told: bool = False
    shown_end: str | None = None
    signal_name: str | None = None
    lost: bool = False
    could_not_start: str | None = None
    passing: bool = False
    missing: bool = False
    killed: bool = False
    last_line: str | None = None
    why_asked: str | None = None
    running_s: float = 0.0
    boxes: int = 1
    suspended: bool = False
    first_sign_s: float | None = None
    out_of_memory: str | None = None
    cut_cost_s: float | None = None
    unreadable: str | None = None
    port_in_use: str | None = None
    disk_full: bool = False
    hung: bool = False
    job: JobEnd | None = None
    by_engine: bool = False


class Chain(msgspec.Struct, frozen=True):
    """What the run has done so far, this segment included. Times in seconds.

    `progressed`: this segment left a good checkpoint newer than its start. `resumable`: any good one is known.
    `has_begun`: it has ever reported a step or a loss, or saved.
    `unstarted`: how many segments in a row before this one the machine could not start.
    `advanced`: the highest reported step rose during this segment. `promised_mib`, `peak_mib`: VRAM per GPU that
    was reserved for the run, and seen used by it. `host_faults`: earlier ends by a full disk or a taken port since it
    last saved anything new. `others_live`: other runs live just now; looked at for a taken port only. `fallback`: where
    the segment failed at once, the checkpoint that it was given, and the one to try instead. `fell_back`: how many
    segments in a row before that one failed at once with a checkpoint.
    `not_handed_back`: a checkpoint that it wrote, where nothing is known that would hand it back. `refused`: its newest
    one, and why it does not count, where there is no good one; `doubted`: because another run may have written it.
    """

    segments: int
    total_s: float
    stalled: int
    retries_used: int
    lost: int
    progressed: bool
    resumable: bool
    unstarted: int = 0
    has_begun: bool = False
    advanced: bool = False
    promised_mib: int = 0
    peak_mib: int | None = None
    oom_retries: int = 0
    host_faults: int = 0
    others_live: bool = False
    fallback: tuple[str, str] | None = None
    fell_back: int = 0
    not_handed_back: str | None = None
    refused: str | None = None
    doubted: bool = False

    @property
    def why_not_resumable(self) -> str:
        """Why there is nothing to resume from, in words."""
        if self.not_handed_back is not None:
            return f"it wrote {self.not_handed_back}, and no option is known to hand it back"
        if self.refused is not None:
            return f"its checkpoint is refused: {self.refused}"
        return "no checkpoint is known"
