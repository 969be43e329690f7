"""Watches the segments of a drill while they run: first output, steps, RAM.

Reads files and /proc only. The database stays with the thread of the worker.
"""

import contextlib
import re
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from backprop.cli.drill.verdict import REPORTED
from backprop.scheduler.home.layout import Home
from backprop.worker.executor import segment_files
from backprop.worker.executor.local import LocalExecutor
from backprop.worker.progress.metric_rules import usable_rules
from backprop.worker.progress.numbers import PlainReader
from backprop.worker.progress.steps import StepTrace
from backprop.worker.segments import events
from backprop.worker.segments.plain_output import PlainOutput
from backprop.worker.segments.tail import Tail

POLL_S: Final = 0.2
RAM_EVERY_S: Final = 1.0


class Observation(msgspec.Struct):
    """What one segment showed while it ran. Times in seconds since its start; None: not seen.

    `steps`: see `verdict.DrillSegment`.
    """

    first_line_s: float | None = None
    first_step_s: float | None = None
    steps: dict[str, StepTrace] = {}
    ram_peak_mib: int | None = None


class SegmentWatcher(threading.Thread):
    """Watches one run from `start()` to `finish()`. `observations`: by segment number, to be read after `finish()`."""

    def __init__(self, home: Home, run_id: str, metric_regex: Sequence[str]) -> None:
        super().__init__(name="drill", daemon=True)
        self.observations: dict[int, Observation] = {}
        self._home, self._run_id = home, run_id
        self._executor = LocalExecutor(home)
        self._tails: list[Tail] = []
        self._plain: PlainOutput | None = None
        self._metric_regex = metric_regex
        self._number = 0
        self._over = threading.Event()
        self._ram_read_s = 0.0

    def run(self) -> None:
        while not self._over.wait(POLL_S):
            with contextlib.suppress(OSError):
                self._poll()

    def finish(self) -> None:
        """Read the rest of the output and end the thread."""
        self._over.set()
        self.join()
        with contextlib.suppress(OSError):
            self._poll()
        for tail in self._tails:
            tail.close()

    def _poll(self) -> None:
        if self._number:
            self._read_output()
            self._read_ram()
        following = self._home.segment_folder(self._run_id, self._number + 1)
        if (following / segment_files.PROCESSES).exists():
            for tail in self._tails:
                tail.close()
            self._number += 1
            self.observations[self._number] = Observation()
            self._tails = [Tail(following / "events.jsonl"), Tail(following / "log")]
            self._plain = PlainOutput(self._tails[1], PlainReader(usable_rules(self._metric_regex)))
            self._poll()

    def _read_output(self) -> None:
        observed = self.observations[self._number]
        folder = self._home.segment_folder(self._run_id, self._number)
        processes = segment_files.read_processes(folder)
        now_s = max(time.time() - processes.started_at_s, 0.0) if processes is not None else 0.0
        for tail in self._tails:
            at_end = False
            while not at_end:
                for line in tail.read():
                    observed.first_line_s = now_s if observed.first_line_s is None else observed.first_line_s
                    event = events.parse(line)
                    if isinstance(event, events.ProgressEvent) and event.step is not None:
                        observed.steps.setdefault(REPORTED, StepTrace()).take(event.step)
                at_end = tail.at_end
        if self._plain is not None:
            self._plain.look(final=False)
            announced = {word: trace for word, trace in observed.steps.items() if word == REPORTED}
            trace = self._plain.trace
            observed.steps = announced | ({trace.unit or "step": trace} if trace is not None else {})
        if observed.steps and observed.first_step_s is None:
            observed.first_step_s = now_s

    def _read_ram(self) -> None:
        if time.monotonic() - self._ram_read_s < RAM_EVERY_S:
            return
        self._ram_read_s = time.monotonic()
        mib = sum(_pss_kib(pid) for pid in self._executor.pids(self._run_id, self._number)) // 1024
        observed = self.observations[self._number]
        observed.ram_peak_mib = max(mib, observed.ram_peak_mib or 0) or None


def _pss_kib(pid: int) -> int:
    """Return the memory of a process with its part of shared pages (PSS); 0 once it is gone."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0
    match = re.search(r"^Pss:\s+(\d+) kB", text, re.MULTILINE)
    return int(match[1]) if match else 0
