"""Judges one run after another on one reading of the machine, each as if those planned before it had started.

A worker's admission and `--dry-run` both judge with it.
"""

from backprop.scheduler.config.settings import Settings
from backprop.scheduler.governor.decide import Decision, Limits, Need, Reservation
from backprop.scheduler.governor.disk import Growth
from backprop.scheduler.governor.need import limits_of, need_of, promises_of
from backprop.scheduler.governor.suspension import may_thaw
from backprop.scheduler.records import RunRecord
from backprop.scheduler.spec import RunSpec
from backprop.worker.machine.state import MachineState


class Judge:
    """`settings`: of the worker that would start the runs."""

    def __init__(self, state: MachineState, settings: Settings) -> None:
        self._state = state
        self._settings = settings
        self._starting = 0
        self._planned: list[Reservation] = []
        self._decisions: dict[tuple[Need, Limits], Decision] = {}

    @property
    def running(self) -> int:
        """How many runs will be running once the planned ones have started."""
        return self._state.running + self._starting

    def judge(
        self, spec: RunSpec, learned_mib: int | None, raised_mib: int | None, growth: Growth | None = None
    ) -> tuple[Need, Decision]:
        """Judge one start. `learned_mib`, `raised_mib`: see `need_of`; `growth`: see `limits_of`."""
        need = need_of(spec, self._state.snapshot, learned_mib, raised_mib)
        limits = limits_of(spec, self._settings, growth)
        decision = self._decisions.get((need, limits))
        if decision is None:
            decision = self._state.decide(need, limits, self._planned, self._starting)
            self._decisions[need, limits] = decision
        return need, decision

    def judge_thaw(self, run: RunRecord) -> tuple[Need | None, Decision]:
        """Judge whether a suspended run may go on: it keeps the GPUs that it has. Also return what it then needs of
        them, where its VRAM has to come back."""
        segment = next((each for each in self._state.segments if each.run_id == run.id), None)
        limits = limits_of(run.spec, self._settings)
        if segment is None or segment.vram_out_mib is None:
            uuids = segment.gpu_uuids if segment is not None else ()
            return None, may_thaw(limits, self._state.snapshot, self.running, uuids)
        need, denials = self._state.judge_return(segment, limits, self._planned)
        denials = (*may_thaw(limits, self._state.snapshot, self.running, ()).denials, *denials)
        return need, Decision(denials, () if denials else segment.gpu_uuids)

    def add_thawed(self, run_id: str, need: Need | None, decision: Decision, now_s: float) -> None:
        """Count a suspended run as one that goes on. `need`: what is promised to it again."""
        self._starting += 1
        if need is not None:
            self._planned += promises_of(run_id, decision.gpu_uuids, need, now_s)
        self._decisions.clear()

    def plan(self, run_id: str, need: Need, decision: Decision, now_s: float) -> None:
        """Count an admitted run as started: whatever is judged after it finds less room. `now_s`: wall clock."""
        self._starting += 1
        self._planned += promises_of(run_id, decision.gpu_uuids, need, now_s)
        self._decisions.clear()
