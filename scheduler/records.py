"""Defines the rows as they leave the database: frozen, typed, without behaviour.

Times (`_s`) are Unix seconds; None means "not yet" or "unknown".
"""

from typing import Final, Protocol

import msgspec

from backprop.scheduler.lifecycle import Intent, State
from backprop.scheduler.outcome.segment_outcome import SegmentOutcome
from backprop.scheduler.spec import RunSpec

EVENT: Final = "event"
LOG: Final = "log"
"""Where a number comes from: announced by the script, or read out of its plain output."""


class RunRef(Protocol):
    """What has to be known of a run to find its files. `batch`: queued with others, see `home.batch_file`."""

    @property
    def id(self) -> str: ...
    @property
    def batch(self) -> str | None: ...
    @property
    def segment(self) -> int: ...


class Waiting(msgspec.Struct, frozen=True, kw_only=True):
    """One rule that keeps a queued run waiting, or for which a run is held until its files are back.

    `needed`, `present`: in the rule's unit (MiB, °C, runs, load per core); None where there is no amount. `gpu_index`
    None: a rule of the host. `path`: what is not there.
    """

    rule: str
    text: str
    needed: float | None = None
    present: float | None = None
    gpu_index: int | None = None
    since_s: float
    path: str | None = None


class RunRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One run. `reason`: why it is in its state, for people; nothing is decided by it.

    `segment`: how many segments have started, also the fencing token of the live one. `chain_start`: the segment after
    which the user last queued or resumed it; `chain_total_s`: running seconds since then, for `--max-total-minutes`.
    `resume_pin`: what the chain begins from, as the user said when resuming: a path, or "" for "from scratch".
    `waiting`: the rules that last kept it waiting, while it is queued; what it is held for, if it is released by
    itself. `not_before_s`: it is not started earlier.
    `priority`: higher first. `turn_s`: its place among equals, lower first; see `store.writes.ordering`.
    `group_name`, `array_index`: its group, and which member it is. `batch`: queued with others, see `home.batch_file`.
    `intent`: why the live segment is asked to end. `stalled`, `retries_used`, `lost`: counters of `scheduler.outcome`.
    `host_faults`: ends by a full disk or a taken port.
    `fault`: what kind of trouble ended it, see `scheduler.faults`. `need_mib`: VRAM per GPU, raised after it ran out of
    GPU memory. `paused_for`: the governor's cause, while paused. `step_source`, `loss_source`: EVENT or LOG; None where
    an earlier program wrote the row, which knew announced ones alone. `step_unit`, `step_total`: what the steps of
    plain output count ("step", "epoch"), and how many there will be. `boxes`: how many timeboxes have begun, at least
    one with each segment. `suspension`: ASKED, its user wants the running one suspended; KEPT, its user has suspended
    it; None otherwise. `thaw_at_s`: when a suspended run that is KEPT, or will be, may go on by itself.
    `vram_stays`: why its VRAM could not be moved to RAM, which is not asked for again. `key`: its user's, which no
    other run has; None too where another had it first. `cluster`: as in its specification.
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
    host_faults: int
    step_source: str | None = None
    step_unit: str | None = None
    step_total: int | None = None
    loss_source: str | None = None
    boxes: int = 0
    suspension: str | None = None
    thaw_at_s: float | None = None
    vram_stays: str | None = None
    key: str | None = None
    cluster: str | None = None


class SegmentRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One segment. `outcome` is None while it lives.

    `promised_mib`: VRAM reserved on each GPU of `gpu_uuids`; `peak_mib`: the most seen used on one. `need_source`:
    where the need came from. `steps_from`: the run's last step when it started. `running_s`: seconds, pauses left out.
    `first_output_s`: seconds from its start to its first output. `cut_cost_s`: running seconds whose work was lost at
    its end. `step_unit`, `step_total`, `step_fell`: of the steps in its plain output what they count, how many there
    will be, and whether one was lower than the one before; None where it announced them. `boxes`: the timeboxes that it
    has begun. `first_step_s`: seconds from its start to its first step. `suspensions`: the number of the last order to
    suspend it that was carried out to its end, or taken back. `kept_mib`: the RAM that it kept at the last one.
    `vram_out_mib`: how much of its VRAM lies in RAM while it is suspended, None where none does.
    `saving_s`: how long its saves took, as far as that is known. `cluster`: whose job it is, None for this machine; the
    following are None there too. `token`: names this segment and no other. `job`: the cluster's number, as far as it is
    known; `node`: where it began, and `begun_at_s` when. `engine_words`: what the cluster last said of the job.
    `log_offset`, `events_offset`: bytes read so far. `bad_events`: events that could not be understood.
    """

    run_id: str
    number: int
    worker: str
    started_at_s: float
    ended_at_s: float | None
    outcome: SegmentOutcome | None
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
    step_unit: str | None = None
    step_total: int | None = None
    step_fell: bool | None = None
    boxes: int = 1
    first_step_s: float | None = None
    suspensions: int = 0
    kept_mib: int | None = None
    vram_out_mib: int | None = None
    saving_s: float = 0.0
    cluster: str | None = None
    token: str | None = None
    job: str | None = None
    node: str | None = None
    begun_at_s: float | None = None
    engine_words: str | None = None


class SuspensionRecord(msgspec.Struct, frozen=True):
    """One suspension of a segment, in Unix seconds.

    `ordered_at_s`: when it was ordered. `left_at_s`: when it was frozen, its VRAM moved if it was, and its slot free.
    `claimed_at_s`: when it had a slot again. `on_at_s`: when it went on, its VRAM in place. None: not yet, or its
    segment ended without.
    """

    run_id: str
    segment: int
    ordered_at_s: float
    left_at_s: float
    claimed_at_s: float | None
    on_at_s: float | None

    @property
    def moving_s(self) -> float:
        """How long it took to leave and to come back, as far as it has."""
        back_s = self.on_at_s - self.claimed_at_s if self.on_at_s and self.claimed_at_s else 0.0
        return self.left_at_s - self.ordered_at_s + back_s


ASKED: Final = "asked"
KEPT: Final = "kept"
"""Values of `RunRecord.suspension`."""
SUSPECT: Final = "suspect: "
"""How `refused` begins of a checkpoint that is whole, and that a segment failed with at once."""


class CheckpointRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One checkpoint, announced or seen on disk. `refused`: why it cannot be used; None for a good one.

    `seen_step`: the step its segment's plain output had reached by then at least. `attribution`: how it is known that
    this run alone wrote it, see `worker.checkpoints.seen.attribution`; None where an earlier program wrote the row.
    `observed`: it was found on disk where no pattern of the plan had named it.
    """

    run_id: str
    segment: int
    path: str
    step: int | None
    size_bytes: int
    mtime_ns: int
    is_dir: bool
    saved_at_s: float
    refused: str | None
    seen_step: int | None = None
    attribution: str | None = None
    observed: bool = False


class MetricRecord(msgspec.Struct, frozen=True):
    """One value that a run reported.

    `at_s`: when it was read, or when its output was last written to if that is earlier. `step`: the last one reported
    by then. `source`: EVENT or LOG.
    """

    run_id: str
    segment: int
    at_s: float
    step: int | None
    name: str
    value: float
    source: str = EVENT


class WorkerRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One worker. `stopped_at_s` None: it has not ended in an orderly way; its lock tells whether it is alive.
    `active_hours`: in which it starts runs, as in the settings, none for always; None: not known."""

    id: str
    pid: int
    max_parallel: int
    started_at_s: float
    stopped_at_s: float | None
    active_hours: tuple[str, ...] | None = None


class QuarantineRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A GPU that a worker has quarantined, and why."""

    gpu_uuid: str
    worker: str
    reason: str
    since_s: float


class ForeignPeakRecord(msgspec.Struct, frozen=True, kw_only=True):
    """The most that other programs were lately seen to use of a GPU. `pids`: of the processes on the GPU then; empty
    when the driver lists none. `at_s`: when that much was last in use, Unix seconds."""

    gpu_uuid: str
    mib: int
    pids: tuple[int, ...]
    at_s: float


class Refusal(msgspec.Struct, frozen=True):
    """One reason why the head of the queue did not start when a sample was taken. `gpu_index` None: of the host, or
    none of a machine."""

    rule: str
    text: str
    gpu_index: int | None = None


NOTHING_QUEUED: Final = Refusal("nothing queued", "nothing was queued")
NOT_DUE: Final = Refusal("not due", "what was queued waited for its time, another run or its group")


class SampleRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One reading of a GPU, or of the host where `gpu_uuid` is None, which alone has `refusals`.

    `refusals` None: nobody noted why nothing started. `run_ids`: of the runs that lived there. `limit_c`: where a run
    was paused for heat.
    """

    at_s: float
    gpu_uuid: str | None
    gpu_index: int | None
    gpu_name: str | None
    free_mib: int | None
    total_mib: int | None
    temp_c: int | None
    limit_c: int | None
    utilisation_pct: int | None
    power_w: float | None
    run_ids: tuple[str, ...]
    refusals: tuple[Refusal, ...] | None


class ClockChange(msgspec.Struct, frozen=True):
    """A moment at which the wall clock went ahead of running time by `by_s`, of which the machine slept `slept_s`.

    `at_s`: what the wall clock said right after it."""

    at_s: float
    by_s: float
    slept_s: float
