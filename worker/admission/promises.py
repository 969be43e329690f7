"""Posts what a round of admission promises on GPUs where other homes read it, before anything is claimed.

Each home posts first and reads the others' promises after that. So of two that decide at the same moment at least one
sees the other, and takes back what does not fit beside it. No lock is shared that a frozen home could keep. Runs
without a GPU promise nothing, and never wait here.
"""

import random
import time
from collections.abc import Sequence
from typing import Final

import msgspec

from backprop.scheduler.governor.decide import Reservation
from backprop.scheduler.governor.need import limits_of, promises_of
from backprop.worker.admission.preparation import AdmittedRun, release_locks
from backprop.worker.context import Context
from backprop.worker.machine.state import MachineState, look_elsewhere_again

APART_S: Final = 0.05
"""Two homes that have both taken back wait for up to this long, each for as long as chance has it."""


class PromisePoster:
    """Posts the promises of one worker."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._trouble: str | None = None

    def post(self, admitted: Sequence[AdmittedRun], state: MachineState) -> list[AdmittedRun]:
        """Return the runs that may be claimed, each with its promise. Releases the others: they stay queued."""
        if not any(decision.gpu_uuids for _, decision, _ in admitted):
            return list(admitted)
        posted: list[AdmittedRun] = []
        try:
            self._context.executor.board.sweep()
            for entry in admitted:
                posted.append(self._posted(entry))
            kept = self._fitting(posted, state)
        except BaseException:
            release_locks([*posted, *admitted[len(posted) :]])
            raise
        if len(kept) < len(posted):
            release_locks([entry for entry in posted if entry not in kept])
            time.sleep(random.uniform(0, APART_S))
        return kept

    def _posted(self, entry: AdmittedRun) -> AdmittedRun:
        """Post one promise. Where that can't be done, the run starts without, as on a machine with one home."""
        prepared, decision, need = entry
        if not decision.gpu_uuids:
            return entry
        try:
            promise = self._context.executor.board.post(decision.gpu_uuids, need.vram_mib, need.exclusive)
        except OSError as error:
            trouble = str(error.strerror or error)
            if trouble != self._trouble:
                told = f"other homes are not told what is promised here: {trouble}"
                self._context.console.event("no board", more=told)
            self._trouble = trouble
            return entry
        self._trouble = None
        return msgspec.structs.replace(prepared, promise=promise), decision, need

    def _fitting(self, posted: list[AdmittedRun], state: MachineState) -> list[AdmittedRun]:
        """Return those that still fit beside what other homes have promised since they were judged."""
        now = look_elsewhere_again(state, self._context.executor, self._context.clock)
        if now.elsewhere == state.elsewhere:
            return posted
        kept: list[AdmittedRun] = []
        planned: list[Reservation] = []
        for entry in posted:
            prepared, decision, need = entry
            limits = limits_of(prepared.run.spec, self._context.settings)
            again = now.decide(need, limits, planned, len(kept))
            if not decision.gpu_uuids or again.gpu_uuids == decision.gpu_uuids:
                kept.append(entry)
                planned += promises_of(
                    prepared.run.id, decision.gpu_uuids, need, self._context.clock.wall_s()
                )
        return kept
