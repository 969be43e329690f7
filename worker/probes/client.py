"""Asks the helper process for readings, without ever waiting for it.

A call into a sick NVIDIA driver cannot be interrupted, and may leave its process unkillable (state D). So a helper
makes the readings. One that overruns its deadline is killed and left behind, never waited for, and the GPUs count as
unknown until another helper answers.

    probe = GpuProbe(ProbeKind.AUTO)
    each tick:   probe.request(now_s)            # asks, if it is time
                 select([..., probe.fileno()])   # None: nothing to wait for
                 reading = probe.poll(now_s)     # a new reading, or None
    at the end:  probe.close()

All times are monotonic seconds.
"""

import select
import time
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from backprop.scheduler.config.choices import ProbeKind
from backprop.scheduler.governor.snapshot import Gpu
from backprop.worker.probes.helper_process import HelperProcess
from backprop.worker.probes.nvml_device import UNKNOWN_UUID
from backprop.worker.probes.reading import NO_GPU, Reading, lost, unknown

DEADLINE_S: Final = 10.0
"""For one reading. On a busy machine NVML takes over 2 s; an answer that takes over 10 s seldom comes at all."""

INTERVAL_S: Final = 1.0

BACK_OFF_S: Final = 30.0
MAX_BACK_OFF_S: Final = 300.0
"""After an overrun: each attempt leaves one more process in a sick driver, and may make it sicker."""

RETRY_S: Final = 2.0
MAX_RETRY_S: Final = 60.0
"""After an answer that no GPU can be read, and after a helper that died."""

NO_GPU_PAUSE_S: Final = 300.0
"""A machine without GPUs is asked again only this often, and holds no helper (about 20 MB) in between."""

MAX_LEFT_BEHIND: Final = 2

_NEVER_ASKED: Final = Reading((), "none", "the GPUs have not been read yet")


class GpuProbe:
    """The GPUs of this machine, as a helper process last reported them.

    `latest`: the last reading; after a failure, the GPUs last known with the reason in each, and in its `problem`.
    `stale`: `latest` is such a stand-in and not an answer. `interval_s`: the least time between two requests.
    `back_off_s`, `retry_s`: the pause after a first overrun, and after any other first failure; they double with each
    further one. `helper_options`, `environment`: for the helper; None is the worker's environment.
    """

    def __init__(
        self,
        kind: ProbeKind | str = ProbeKind.AUTO,
        deadline_s: float = DEADLINE_S,
        *,
        interval_s: float = INTERVAL_S,
        back_off_s: float = BACK_OFF_S,
        retry_s: float = RETRY_S,
        helper_options: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.latest = _NEVER_ASKED
        self.stale = True
        self._kind = ProbeKind(kind)
        self._deadline_s = deadline_s
        self._interval_s = interval_s
        self._back_off_s = back_off_s
        self._retry_s = retry_s
        self._options = tuple(helper_options)
        self._environment = environment
        self._helper: HelperProcess | None = None
        self._left_behind: list[HelperProcess] = []
        self._known: dict[str, Gpu] = {}
        self._failures = 0
        self._not_before_s = float("-inf")
        self._asked_s: float | None = None
        self._fresh: Reading | None = None

    def request(self, now_s: float) -> None:
        """Ask for a reading, unless one is on its way or it is too early after a failure. Never waits."""
        self._reap()
        if self._asked_s is not None or now_s < self._not_before_s:
            return
        if self._kind is ProbeKind.NONE:
            self._not_before_s = float("inf")
            self._keep(NO_GPU)
            return
        for _ in range(2):  # a helper that died while idle is replaced silently
            if self._helper is None and not self._start(now_s):
                return
            if self._helper is not None and self._helper.ask():
                self._asked_s, self._not_before_s = now_s, now_s + self._interval_s
                return
            self._leave_behind()
        self._retry_later(now_s, "the GPU probe's helper ends as soon as it is started")

    def fileno(self) -> int | None:
        """Return what becomes readable when an answer comes; None while none is awaited."""
        return None if self._helper is None or self._asked_s is None else self._helper.out_fd

    def poll(self, now_s: float) -> Reading | None:
        """Return the reading that came, or failed to come, since the last call; None if there is nothing new."""
        self._reap()
        if self._asked_s is not None and self._helper is not None:
            self._read_answer(self._helper, self._asked_s, now_s)
        fresh, self._fresh = self._fresh, None
        return fresh

    def close(self) -> None:
        """End the helper. One that is stuck in the driver is left to the kernel."""
        self._leave_behind()
        end_s = time.monotonic() + 0.5
        while self._left_behind and time.monotonic() < end_s:
            time.sleep(0.005)
            self._reap()
        for helper in self._left_behind:
            helper.forget()
        self._left_behind.clear()

    def _start(self, now_s: float) -> bool:
        if len(self._left_behind) >= MAX_LEFT_BEHIND:
            self._not_before_s = now_s + self._retry_s  # the kernel may release one of them by then
            why = f"{len(self._left_behind)} GPU probes are stuck in the driver"
            if self.latest.problem != why:
                self._keep(self._unknown(why))
            return False
        try:
            options = ("--kind", self._kind.value, "--tool-deadline-s", f"{self._deadline_s * 0.8:g}")
            self._helper = HelperProcess((*options, *self._options), self._environment)
        except OSError as error:
            self._retry_later(now_s, f"the GPU probe's helper cannot be started: {error.strerror}")
            return False
        return True

    def _read_answer(self, helper: HelperProcess, asked_s: float, now_s: float) -> None:
        line = helper.read_line()
        if line is None:
            if now_s - asked_s > self._deadline_s:
                self._back_off(now_s, f"the GPU driver has not answered for {now_s - asked_s:.0f} s")
        elif not line:
            self._retry_later(now_s, f"the GPU probe's helper ended{helper.last_words()}")
        else:
            try:
                reading = msgspec.json.decode(line, type=Reading)
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                self._retry_later(now_s, f"the GPU probe's helper answered nonsense: {error}")
            else:
                self._answered(reading, now_s)

    def _answered(self, reading: Reading, now_s: float) -> None:
        self._asked_s = None
        if reading.problem is not None or (reading.empty_machine and self._known):
            # A new process loads the driver's library anew, which after an upgrade is the only cure.
            self._retry_later(now_s, reading.problem or "the GPUs seen before are gone")
            return
        self._failures = 0
        if reading.empty_machine:
            self._leave_behind()
            self._not_before_s = now_s + NO_GPU_PAUSE_S
        self._keep(msgspec.structs.replace(reading, gpus=self._recognise(reading.gpus)), stale=False)

    def _recognise(self, gpus: tuple[Gpu, ...]) -> tuple[Gpu, ...]:
        """Name the GPUs that cannot report their UUID any more, and add those that are no longer listed."""
        listed = {gpu.uuid for gpu in gpus}
        why_at = {gpu.index: gpu.error for gpu in gpus if gpu.error is not None}
        missing = [gpu for uuid, gpu in self._known.items() if uuid not in listed]
        # An instance of a partitioned GPU disappears when it is partitioned anew: nothing is lost then.
        vanished = [
            lost(gpu, why_at.get(gpu.index, "its driver no longer lists it"))
            for gpu in missing
            if gpu.index in why_at or not gpu.uuid.startswith("MIG-")
        ]
        recognised = {gpu.index for gpu in vanished}
        kept = [g for g in gpus if not (g.uuid.startswith(UNKNOWN_UUID) and g.index in recognised)]
        self._known = {gpu.uuid: gpu for gpu in (*kept, *vanished) if not gpu.uuid.startswith(UNKNOWN_UUID)}
        return tuple(sorted((*kept, *vanished), key=lambda gpu: gpu.index))

    def _back_off(self, now_s: float, why: str) -> None:
        self._fail(why, now_s + min(self._back_off_s * 2**self._failures, MAX_BACK_OFF_S))

    def _retry_later(self, now_s: float, why: str) -> None:
        self._fail(why, now_s + min(self._retry_s * 2**self._failures, MAX_RETRY_S))

    def _fail(self, why: str, not_before_s: float) -> None:
        self._asked_s = None
        self._not_before_s = not_before_s
        self._failures = min(self._failures + 1, 20)
        self._leave_behind()
        self._keep(self._unknown(why))

    def _unknown(self, why: str) -> Reading:
        return unknown(tuple(self._known.values()), why)

    def _keep(self, reading: Reading, *, stale: bool = True) -> None:
        self.latest = self._fresh = reading
        self.stale = stale and self._kind is not ProbeKind.NONE

    def _leave_behind(self) -> None:
        if self._helper is not None:
            self._helper.kill()
            self._left_behind.append(self._helper)
            self._helper = None
            self._reap()

    def _reap(self) -> None:
        self._left_behind = [helper for helper in self._left_behind if not helper.gone()]


def read_once(kind: ProbeKind | str = ProbeKind.AUTO, deadline_s: float = DEADLINE_S) -> Reading:
    """Read the GPUs once, for a command that needs no more. Waits for `deadline_s` at most."""
    probe = GpuProbe(kind, deadline_s)
    try:
        while True:
            now_s = time.monotonic()
            probe.request(now_s)
            reading = probe.poll(now_s)
            if reading is not None:
                return reading
            fd = probe.fileno()
            select.select([] if fd is None else [fd], [], [], 0.1)
    finally:
        probe.close()
