"""Watches running runs: heat, RAM, memory limits, VRAM peaks, unreturned memory.

It checks every two seconds while anything lives. `governor.runtime` decides, and the monitor applies it: a pause
freezes the process tree through its supervisor; a yield or a stop is recorded first, and the segment tracker then asks
for it.
"""

import contextlib
from collections.abc import Callable, Sequence
from typing import Final, Protocol

import msgspec

from backprop.scheduler.errors import LostRace
from backprop.scheduler.governor import gpu_quarantine, need
from backprop.scheduler.governor.box_end import BoxCause
from backprop.scheduler.governor.gpu_quarantine import UnreturnedMemory
from backprop.scheduler.governor.runtime import Action, ActionKind, Cause, WatchedRun, watch_all
from backprop.scheduler.governor.snapshot import Snapshot
from backprop.scheduler.governor.vram import PEAK_STEP_MIB, ForeignPeak
from backprop.scheduler.lifecycle import Intent, State
from backprop.scheduler.records import RunRecord, SegmentRecord
from backprop.scheduler.store import gpu_history
from backprop.scheduler.store.writes import claims
from backprop.worker.context import Context
from backprop.worker.machine.state import MachineState, Remembered, read_state, unrecorded_peaks

CHECK_EVERY_S: Final = 2.0


class Sense(Protocol):
    def snapshot(self) -> Snapshot | None: ...


class RuntimeMonitor:
    """Keeps what must be remembered between readings: peaks, pauses, and memory that ended segments must return."""

    def __init__(self, context: Context, sense: Sense) -> None:
        self._context = context
        self._reader = sense
        self._checked_s = -CHECK_EVERY_S
        self._peaks: dict[str, ForeignPeak] = {}
        self._run_peaks: dict[tuple[str, int], int] = {}
        self._paused_s: dict[str, float] = {}
        self._in_use: dict[tuple[str, int, str], UnreturnedMemory] = {}
        self._unreturned: list[UnreturnedMemory] = []
        self._busy_s: dict[str, float] = {}
        self._read_s: dict[str, float] = {}
        self._kept: dict[str, str] = {}
        self.why_not_end: Callable[[RunRecord, BoxCause], str | None] = lambda _run, _cause: None
        """Returns why ending a run to make room would lose work; None where it would not."""
        self.suspend: Callable[[RunRecord, str], bool] = lambda _run, _why: False
        """Has a run suspended to make room; False where that can't be."""
        self._quarantined: dict[str, str] = {}

    def read_state(self, snapshot: Snapshot) -> MachineState:
        """Assemble the machine's state, and keep what must outlive this reading. Raises DatabaseBusy."""
        context = self._context
        state = read_state(
            context.database,
            snapshot,
            context.executor,
            context.settings,
            context.clock,
            Remembered(self._peaks, self._quarantined),
        )
        self._peaks = state.peaks
        if news := unrecorded_peaks(state, context.clock):
            gpu_history.record_foreign_peaks(context.database, news)
        self._record_own_peaks(state)
        self._remember_use(state)
        return state

    def check(self, live: list[RunRecord]) -> None:
        """Check the running runs of this worker, if it is time to. Raises DatabaseBusy."""
        now_s = self._context.clock.monotonic_s()
        if now_s - self._checked_s < CHECK_EVERY_S or not (live or self._unreturned or self._quarantined):
            return
        snapshot = self._reader.snapshot()
        if snapshot is None:
            return
        self._checked_s = now_s
        state = self.read_state(snapshot)
        self._judge_unreturned(state)
        # Whether a GPU is idle that does not say so cannot be told.
        busy = (gpu.uuid for gpu in snapshot.gpus if gpu.utilisation_pct is None or gpu.utilisation_pct > 0)
        self._busy_s |= dict.fromkeys(busy, now_s)
        self._read_s |= dict.fromkeys((gpu.uuid for gpu in snapshot.gpus if gpu.error is None), now_s)
        self._watch(live, state, now_s)

    def ended(self, run_id: str, number: int, survivors: bool) -> None:
        """Note that a segment has ended: its VRAM has to come back. `survivors`: processes outlived SIGKILL."""
        self._paused_s.pop(run_id, None)
        self._kept.pop(run_id, None)
        self._run_peaks.pop((run_id, number), None)
        ended_s = self._context.clock.monotonic_s()
        for key in [key for key in self._in_use if key[:2] == (run_id, number)]:
            memory = self._in_use.pop(key)
            self._unreturned.append(msgspec.structs.replace(memory, ended_s=ended_s, survivors=survivors))

    def gpu_was_busy(self, gpu_uuids: Sequence[str], since_s: float) -> bool:
        """Return whether one of these GPUs did something since a moment on the monotonic clock."""
        return any(self._busy_s.get(uuid, -CHECK_EVERY_S) >= since_s for uuid in gpu_uuids)

    def gpu_idle(self, gpu_uuids: Sequence[str], since_s: float) -> bool | None:
        """Return whether none of these GPUs did anything since then; None where no reading tells."""
        if self.gpu_was_busy(gpu_uuids, since_s):
            return False
        return True if all(self._read_s.get(uuid, -1.0) >= since_s for uuid in gpu_uuids) else None

    def _remember_use(self, state: MachineState) -> None:
        """Remember what each segment uses: once it has ended, its processes cannot be asked any more."""
        in_use: dict[tuple[str, int, str], UnreturnedMemory] = {}
        for segment in state.segments:
            for uuid in segment.gpu_uuids:
                key = (segment.run_id, segment.number, uuid)
                gpu, used_mib = state.snapshot.gpu(uuid), state.usage.get((segment.run_id, uuid))
                rest_mib = gpu_quarantine.unexplained_mib(gpu) if gpu is not None else None
                if used_mib and rest_mib is not None:
                    pids = state.processes[segment.run_id]
                    in_use[key] = UnreturnedMemory(
                        segment.run_id, uuid, used_mib, rest_mib, pids, ended_s=0.0
                    )
                elif key in self._in_use:
                    in_use[key] = self._in_use[key]
        self._in_use = in_use

    def _judge_unreturned(self, state: MachineState) -> None:
        """Quarantine the GPUs whose memory has not come back, and release those where it has."""
        context, clock = self._context, self._context.clock
        self._unreturned, reasons = gpu_quarantine.judge(
            self._unreturned, state.snapshot, clock.monotonic_s()
        )
        if reasons == self._quarantined:
            return
        for uuid in reasons.keys() - self._quarantined.keys():
            context.console.event("quarantine", more=f"GPU {_name(state.snapshot, uuid)}: {reasons[uuid]}")
        for uuid in self._quarantined.keys() - reasons.keys():
            context.console.event("recovered", more=f"GPU {_name(state.snapshot, uuid)} is used again")
        self._quarantined = reasons
        gpu_history.set_quarantine(context.database, context.worker, reasons, clock.wall_s())

    def _watch(self, live: list[RunRecord], state: MachineState, now_s: float) -> None:
        runs = {run.id: run for run in live if run.intent is None}
        segments = {segment.run_id: segment for segment in state.segments}
        pairs = [
            (self._watched(run, segments[run.id], state), need.limits_of(run.spec, self._context.settings))
            for run in runs.values()
            if run.id in segments and run.state is not State.SUSPENDED
        ]
        for run_id, action in watch_all(pairs, state.snapshot, now_s).items():
            try:
                self._apply(runs[run_id], action, now_s)
            except LostRace:
                continue

    def _watched(self, run: RunRecord, segment: SegmentRecord, state: MachineState) -> WatchedRun:
        used_mib = {
            uuid: mib for uuid in segment.gpu_uuids if (mib := state.usage.get((run.id, uuid))) is not None
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
            memory_limit_mib=need.memory_limit_mib(run.spec, state.snapshot),
            used_mib=used_mib,
        )

    def _apply(self, run: RunRecord, action: Action, now_s: float) -> None:
        context = self._context
        match action.kind:
            case ActionKind.GO_ON:
                return
            case ActionKind.PAUSE:
                # The state first: a crash in between then leaves a run that is thawed again, not one frozen unseen.
                claims.pause(context.database, run, action.cause or Cause.HEAT, action.reason)
                self._paused_s[run.id] = now_s
                self._tell(run, context.executor.pause)
                context.console.event("paused", run, action.reason)
            case ActionKind.CONTINUE:
                claims.unpause(context.database, run)
                self._paused_s.pop(run.id, None)
                self._tell(run, context.executor.unpause)
                context.console.event("continued", run, action.reason)
            case ActionKind.YIELD:
                why = f"{action.cause}: {action.reason}" if action.cause else action.reason
                why_not = self.why_not_end(run, BoxCause.ROOM)
                if why_not is not None and self.suspend(run, why):
                    return
                if why_not is not None:
                    self._keep(run, f"{why}; it keeps its place: {why_not}")
                    return
                claims.ask_to_end(context.database, run, Intent.YIELD, why)
            case ActionKind.STOP:
                claims.ask_to_end(context.database, run, Intent.LIMIT, action.reason)

    def _keep(self, run: RunRecord, reason: str) -> None:
        """Say once per cause why a run is not ended that should make room."""
        head = reason.partition(":")[0]
        if self._kept.get(run.id) != head:
            self._kept[run.id] = head
            self._context.console.event("kept", run, reason)
            claims.explain(self._context.database, run, reason)

    def _tell(self, run: RunRecord, tell: Callable[[str, int], None]) -> None:
        """Pause its tree, or let it go on. Where its files cannot be read now, `confirm` does so later; it keeps no
        other run back."""
        with contextlib.suppress(OSError):
            tell(run.id, run.segment)

    def confirm(self, live: list[RunRecord]) -> None:
        """Make process trees agree with the recorded states: pausing or thawing one twice does nothing."""
        for run in live:
            if run.state in (State.PAUSED, State.SUSPENDED) and run.intent is None:
                self._tell(run, self._context.executor.pause)
            elif run.state is State.RUNNING and run.intent is None:
                self._tell(run, self._context.executor.unpause)

    def _record_own_peaks(self, state: MachineState) -> None:
        for segment in state.segments:
            used_mib = max(
                (state.usage.get((segment.run_id, uuid)) or 0 for uuid in segment.gpu_uuids), default=0
            )
            key = (segment.run_id, segment.number)
            if used_mib >= max(self._run_peaks.get(key, 0), segment.peak_mib or 0) + PEAK_STEP_MIB:
                self._run_peaks[key] = used_mib
                gpu_history.record_peak(self._context.database, segment.run_id, segment.number, used_mib)


def _name(snapshot: Snapshot, uuid: str) -> str:
    gpu = snapshot.gpu(uuid)
    return uuid if gpu is None else f"{gpu.index} ({gpu.name})"
