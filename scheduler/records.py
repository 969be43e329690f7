"""Rows as they leave the database: frozen, typed, without behaviour.

Times are Unix seconds; None means "not yet" or "cannot say".
"""

from typing import Protocol

import msgspec

from backprop.scheduler.lifecycle import Intent, State
from backprop.scheduler.spec import RunSpec


class RunRef(Protocol):
    """What has to be known of a run to find its files. `batch`: queued with others, see `home.batch_file`."""

    @property
    def id(self) -> str: ...
    @property
    def batch(self) -> str | None: ...
    @property
    def segment(self) -> int: ...


class Waiting(msgspec.Struct, frozen=True, kw_only=True):
    """One rule that keeps a queued run waiting. `needed`, `present`: in the rule's unit (MiB, °C, runs, load per
    core); None where there is no amount. `gpu_index` None: a rule of the host. `since_s`: Unix seconds."""

    rule: str
    text: str
    needed: float | None = None
    present: float | None = None
    gpu_index: int | None = None
    since_s: float


class RunRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One run. `segment`: how many segments have started (also the fencing token of the live one).

    `chain_start`, `chain_total_s`: segments and running seconds since the user last queued or resumed it, for
    `--max-segments` and `--max-total-minutes`. `resume_pin`: what the chain begins from, as the user
    said when resuming: a path, or "" for "from scratch". `waiting`: what a worker last found failing, while it is
    queued.
    `priority`: higher first; `turn_s`: its place among equals, Unix seconds of the queueing that gave it the place.
    `group_name`, `array_index`: of which group it is which member. `batch`: queued with others, see `batches`.
    `fault`: what kind of trouble ended it, see `triage`.
    `need_mib`: VRAM need raised after it ran out of GPU memory. `paused_for`: the governor's cause, while paused.
    """

    id: str
    name: str
    state: State
    reason: str
    spec: RunSpec
    created_at_s: float
    queued_at_s: float
    priority: int
    turn_s: float
    group_name: str | None
    array_index: int | None
    batch: str | None
    started_at_s: float | None
    ended_at_s: float | None
    not_before_s: float
    segment: int
    worker: str | None
    intent: Intent | None
    intent_why: str | None
    chain_start: int
    chain_total_s: float
    stalled: int
    retries_used: int
    lost: int
    resume_pin: str | None
    last_step: int | None
    last_loss: float | None
    exit_code: int | None
    waiting: tuple[Waiting, ...]
    need_mib: int | None
    oom_retries: int
    paused_for: str | None
    fault: str | None


class SegmentRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One segment. `outcome` is None while it lives. `promised_mib`: VRAM
    reserved per GPU in `gpu_uuids`. `steps_from`: the run's last step when it started. `first_output_s`: seconds
    from its start to its first output."""

    run_id: str
    number: int
    worker: str
    started_at_s: float
    ended_at_s: float | None
    outcome: str | None
    reason: str | None
    exit_code: int | None
    signal_name: str | None
    running_s: float | None
    checkpoint_used: str | None
    gpu_uuids: tuple[str, ...]
    promised_mib: int
    need_source: str
    exclusive: bool
    peak_mib: int | None
    steps_from: int | None
    first_output_s: float | None
    first_step: int | None
    cut_cost_s: float | None
    log_offset: int
    events_offset: int
    bad_events: int


class CheckpointRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One announced checkpoint. `refused`: why it cannot be used; None for a good one."""

    run_id: str
    segment: int
    path: str
    step: int | None
    size_bytes: int
    mtime_ns: int
    is_dir: bool
    saved_at_s: float
    refused: str | None


class MetricRecord(msgspec.Struct, frozen=True):
    """One value that a run reported. `at_s`: when it was heard, or when its output was last written to if that is
    longer ago, Unix seconds. `step`: the last one told by then."""

    run_id: str
    segment: int
    at_s: float
    step: int | None
    name: str
    value: float


class WorkerRecord(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    pid: int
    max_parallel: int
    started_at_s: float
    stopped_at_s: float | None


class QuarantineRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A GPU kept aside by a worker, and why. `since_s`: Unix seconds."""

    gpu_uuid: str
    worker: str
    reason: str
    since_s: float


class SampleRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One reading kept for reports: of the host (`gpu_uuid` None, `free_mib` is RAM) or of a GPU (VRAM)."""

    at_s: float
    gpu_uuid: str | None
    free_mib: int | None
    temp_c: int | None
    utilisation_pct: int | None
    load_1m: float | None
