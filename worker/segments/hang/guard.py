"""Watches one live segment for a hang, and ends what hangs: note, stacks, then the stop as at any end.

The note comes before any signal, and the run's intent before the stop signal. A worker that dies before the intent
leaves nothing but a note that says nothing. One that dies after it leaves what the next worker carries out.
"""

import contextlib
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Final

from backprop.scheduler.lifecycle import Intent, State
from backprop.scheduler.records import RunRecord
from backprop.scheduler.store.reads import metrics, queries
from backprop.scheduler.store.writes import claims
from backprop.worker.context import Context
from backprop.worker.segments.hang import note, processes
from backprop.worker.segments.hang.stacks import StackDump
from backprop.worker.segments.hang.watch import Hang, HangWatch, Moment, Rhythm, Work

KNOWN_REPORTS: Final = 1000
"""So many of the newest reports of a run show its rhythm to a worker that has not watched it."""

GpuIdle = Callable[[Sequence[str], float], bool | None]
"""Returns whether some GPUs did nothing since a moment on the monotonic clock; None where no reading tells."""


class HangGuard:
    """One per live segment."""

    def __init__(self, context: Context, run_id: str, number: int) -> None:
        self._context = context
        self._key = (run_id, number)
        self._watch: HangWatch | None = None
        self._dump: StackDump | None = None
        self._why = ""

    def attend(self, run: RunRecord, gpu_uuids: Sequence[str], is_moving: bool, gpu_idle: GpuIdle) -> None:
        """Look after it once per tick. `gpu_uuids`: of its GPUs. `is_moving`: its VRAM is on its way. Raises OSError,
        DatabaseBusy."""
        if not run.spec.watchdog or run.intent is not None:
            self.close()
            return
        now_s = self._context.clock.monotonic_s()
        folder = self._context.executor.folder(*self._key)
        runs = run.state is State.RUNNING and not is_moving
        if self._dump is not None and not runs:
            self.close()
        if self._dump is not None:
            if self._dump.is_done(now_s):
                self.close()
                claims.ask_to_end(self._context.database, run, Intent.YIELD, self._why)
            return
        if self._watch is None:
            note.withdraw(folder)
            self._watch = HangWatch(self._rhythm(run))

        def work(since_s: float) -> Work | None:
            pids = self._context.executor.pids(*self._key)
            idle = gpu_idle(gpu_uuids, since_s)
            if not gpu_uuids and processes.has_gpu_open(pids):
                idle = None  # it uses one that nobody has given it, and so nobody reads
            return processes.look_at(pids, idle) if pids else None

        moment = Moment(now_s, (_printed(folder), run.last_step), runs, run.last_step is not None)
        silence = self._watch.look(moment, work)
        if silence is not None:
            self._begin_end(run, folder, silence, now_s)

    def close(self) -> None:
        """Begin anew, and leave nothing that still asks for stacks."""
        if self._dump is not None:
            self._dump.close()
        self._dump = self._watch = None

    def _begin_end(self, run: RunRecord, folder: Path, silence: Hang, now_s: float) -> None:
        lasted, usual = _span(silence.lasted_s), _span(silence.usual_s)
        self._why = f"hung: no step, output or work for {lasted}, usually every {usual}"
        at_s = self._context.clock.wall_s()
        note.write(
            folder,
            note.HangFile(why=self._why, silent_s=silence.lasted_s, usual_s=silence.usual_s, at_s=at_s),
        )
        self._context.console.event("hung", run, f"segment {run.segment}: {self._why.partition(': ')[2]}")
        self._dump = StackDump(folder, self._context.executor.pids(*self._key), now_s)

    def _rhythm(self, run: RunRecord) -> Rhythm:
        """Return what is known of a run's rhythm from its reports and earlier segments."""
        reports = metrics.report_times(self._context.database, run.id, KNOWN_REPORTS)
        starts = [one.first_step_s for one in queries.segments(self._context.database, run.id)]
        between = [after[1] - before[1] for before, after in pairwise(reports) if before[0] == after[0]]
        return Rhythm(
            [*(start for start in starts if start is not None), *(gap for gap in between if gap > 0)]
        )


def _printed(folder: Path) -> int:
    printed = 0
    for name in ("log", "events.jsonl"):
        with contextlib.suppress(OSError):
            printed += (folder / name).lstat().st_size
    return printed


def _span(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
