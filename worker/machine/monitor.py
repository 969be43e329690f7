"""What the governor does while runs are running: heat, RAM, limits, peaks, GPUs to keep aside, samples.

Looks every two seconds while anything lives. `scheduler.watch` decides; this applies: a pause freezes the tree
through its supervisor, a yield or a stop is recorded first and then asked for by `tend`.
"""

from dataclasses import dataclass, replace
from typing import Final, Protocol

from backprop.scheduler.errors import LostRace
from backprop.scheduler.governor import gpu_quarantine, need
from backprop.scheduler.governor.gpu_quarantine import UnreturnedMemory
from backprop.scheduler.governor.runtime import Action, ActionKind, Cause, WatchedRun, watch_all
from backprop.scheduler.governor.snapshot import Snapshot
from backprop.scheduler.governor.vram import ForeignPeak, Reservation, hold_peaks
from backprop.scheduler.lifecycle import Intent, State
from backprop.scheduler.records import RunRecord, SegmentRecord
from backprop.scheduler.store import gpu_history
from backprop.scheduler.store.reads import queries
from backprop.scheduler.store.writes import claims
from backprop.worker.context import Context
from backprop.worker.machine.gpu_usage import Trees, Usage, trees_of, use_by_trees

LOOK_EVERY_S: Final = 2.0
PEAK_STEP_MIB: Final = 64


class Sense(Protocol):
    def snapshot(self) -> Snapshot | None: ...


@dataclass(frozen=True)
class MachineState:
    """One reading, with what our runs were promised and use in it. `serial`: of the claims it knows of."""

    snapshot: Snapshot
    serial: int
    alive: list[SegmentRecord]
    usage: Usage
    reservations: list[Reservation]


class RuntimeMonitor:
    """Keeps what must be remembered between readings: foreign peaks, pauses, what ended segments left behind."""

    def __init__(self, context: Context, sense: Sense) -> None:
        self._context = context
        self._reader = sense
        self._looked_s = -LOOK_EVERY_S
        self._peaks: dict[str, ForeignPeak] = {}
        self._run_peaks: dict[tuple[str, int], int] = {}
        self._paused_s: dict[str, float] = {}
        self._would_leave: dict[tuple[str, int, str], UnreturnedMemory] = {}
        self._left: list[UnreturnedMemory] = []
        self._kept_aside: dict[str, str] = {}

    @property
    def peaks(self) -> dict[str, ForeignPeak]:
        return self._peaks

    def picture(self, snapshot: Snapshot) -> MachineState:
        """Put a reading together with what is promised; remember foreign peaks and peaks of ours."""
        serial, alive = queries.live_segments(self._context.database)
        trees = trees_of(alive, snapshot, self._context.executor)
        usage = use_by_trees(alive, snapshot, trees)
        reservations = need.reservations_of(alive, usage, self._context.clock.wall_s())
        now_s = self._context.clock.monotonic_s()
        self._peaks = hold_peaks(self._peaks, snapshot, reservations, now_s)
        self._record_peaks(alive, usage)
        self._remember_use(alive, snapshot, usage, trees)
        return MachineState(snapshot, serial, alive, usage, reservations)

    def quarantined(self) -> dict[str, str]:
        """GPU UUID → why no run is to start there, whichever worker found out."""
        others = {one.gpu_uuid: one.reason for one in gpu_history.quarantined(self._context.database)}
        return gpu_quarantine.merged(self._kept_aside, others)

    def look(self, live: list[RunRecord]) -> None:
        """One look at the running runs of this worker, if it is time. Raises DatabaseBusy."""
        now_s = self._context.clock.monotonic_s()
        if now_s - self._looked_s < LOOK_EVERY_S or not (live or self._left or self._kept_aside):
            return
        snapshot = self._reader.snapshot()
        if snapshot is None:
            return
        self._looked_s = now_s
        picture = self.picture(snapshot)
        self._clear_up(picture, now_s)
        self._watch(live, picture, now_s)
        gpu_history.keep_sample(self._context.database, snapshot, self._context.clock.wall_s())

    def ended(self, run_id: str, number: int, survivors: bool) -> None:
        """A segment has ended: its VRAM has to come back."""
        self._paused_s.pop(run_id, None)
        self._run_peaks.pop((run_id, number), None)
        ended_s = self._context.clock.wall_s()
        for key in [key for key in self._would_leave if key[:2] == (run_id, number)]:
            one = self._would_leave.pop(key)
            self._left.append(replace(one, ended_s=ended_s, survivors=survivors))

    def _remember_use(
        self, alive: list[SegmentRecord], snapshot: Snapshot, usage: Usage, trees: Trees
    ) -> None:
        """What each segment was last seen to use: once it has ended, its processes cannot be asked any more."""
        seen: dict[tuple[str, int, str], UnreturnedMemory] = {}
        for segment in alive:
            for uuid in segment.gpu_uuids:
                key = (segment.run_id, segment.number, uuid)
                gpu, used = snapshot.gpu(uuid), usage.get((segment.run_id, uuid))
                rest = gpu_quarantine.unexplained_mib(gpu) if gpu is not None else None
                if used and rest is not None:
                    tree = trees[segment.run_id]
                    seen[key] = UnreturnedMemory(segment.run_id, uuid, used, rest, tree, ended_s=0.0)
                elif key in self._would_leave:
                    seen[key] = self._would_leave[key]
        self._would_leave = seen

    def _clear_up(self, picture: MachineState, now_s: float) -> None:
        wall_s = self._context.clock.wall_s()
        self._left, kept = gpu_quarantine.judge(self._left, picture.snapshot, wall_s)
        if kept == self._kept_aside:
            return
        for uuid in kept.keys() - self._kept_aside.keys():
            self._context.console.event(
                "quarantine", more=f"GPU {_name(picture.snapshot, uuid)}: {kept[uuid]}"
            )
        for uuid in self._kept_aside.keys() - kept.keys():
            self._context.console.event(
                "recovered", more=f"GPU {_name(picture.snapshot, uuid)} is used again"
            )
        self._kept_aside = kept
        gpu_history.set_quarantine(self._context.database, self._context.worker, kept, wall_s)

    def _watch(self, live: list[RunRecord], picture: MachineState, now_s: float) -> None:
        runs = {run.id: run for run in live if run.intent is None}
        segments = {segment.run_id: segment for segment in picture.alive}
        pairs = [
            (self._watched(run, segments[run.id], picture), need.limits_of(run.spec, self._context.settings))
            for run in runs.values()
            if run.id in segments
        ]
        for run_id, action in watch_all(pairs, picture.snapshot, now_s).items():
            try:
                self._apply(runs[run_id], action, now_s)
            except LostRace:
                continue

    def _watched(self, run: RunRecord, segment: SegmentRecord, picture: MachineState) -> WatchedRun:
        seen = {
            uuid: mib for uuid in segment.gpu_uuids if (mib := picture.usage.get((run.id, uuid))) is not None
        }
        paused = Cause(run.paused_for) if run.paused_for is not None else None
        if paused is not None:
            self._paused_s.setdefault(run.id, self._context.clock.monotonic_s())
        return WatchedRun(
            run_id=run.id,
            gpu_uuids=segment.gpu_uuids,
            started_s=segment.started_at_s,
            paused_for=paused,
            paused_since_s=self._paused_s.get(run.id),
            memory_limit_mib=need.memory_limit_mib(run.spec, picture.snapshot),
            seen_mib=seen,
        )

    def _apply(self, run: RunRecord, action: Action, now_s: float) -> None:
        context = self._context
        match action.kind:
            case ActionKind.GO_ON:
                return
            case ActionKind.PAUSE:
                # The state first: a crash in between leaves a run that is thawed again, never one frozen unseen.
                claims.pause(context.database, run, action.cause or Cause.HEAT, action.reason)
                self._paused_s[run.id] = now_s
                context.executor.pause(run.id, run.segment)
                context.console.event("paused", run, action.reason)
            case ActionKind.CONTINUE:
                claims.unpause(context.database, run)
                self._paused_s.pop(run.id, None)
                context.executor.unpause(run.id, run.segment)
                context.console.event("continued", run, action.reason)
            case ActionKind.YIELD:
                why = f"{action.cause}: {action.reason}" if action.cause else action.reason
                claims.ask_to_end(context.database, run, Intent.YIELD, why)
            case ActionKind.STOP:
                claims.ask_to_end(context.database, run, Intent.LIMIT, action.reason)

    def confirm(self, live: list[RunRecord]) -> None:
        """Make the trees agree with the states: pausing or thawing one twice does nothing."""
        for run in live:
            if run.state is State.PAUSED and run.intent is None:
                self._context.executor.pause(run.id, run.segment)
            elif run.state is State.RUNNING and run.intent is None:
                self._context.executor.unpause(run.id, run.segment)

    def _record_peaks(self, alive: list[SegmentRecord], usage: Usage) -> None:
        for segment in alive:
            seen = max((usage.get((segment.run_id, uuid)) or 0 for uuid in segment.gpu_uuids), default=0)
            key = (segment.run_id, segment.number)
            if seen >= max(self._run_peaks.get(key, 0), segment.peak_mib or 0) + PEAK_STEP_MIB:
                self._run_peaks[key] = seen
                gpu_history.record_peak(self._context.database, segment.run_id, segment.number, seen)


def _name(snapshot: Snapshot, uuid: str) -> str:
    gpu = snapshot.gpu(uuid)
    return uuid if gpu is None else f"{gpu.index} ({gpu.name})"
