"""The machine as the governor is to see it: the host read now, the GPUs as their helper last told."""

from typing import Final

from backprop.scheduler.snapshot import Snapshot
from backprop.worker.context import Context
from backprop.worker.probes.client import GpuProbe
from backprop.worker.probes.host import read_host

FRESH_S: Final = 3.0
"""A reading older than this is not decided on: memory is taken and given back within seconds."""


class MachineSense:
    """Reads GPUs only while somebody asks. The first reading is asked for at once, so that it is there by then."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._probe = GpuProbe(context.settings.gpu_probe.value)
        self._told_s: float | None = None
        self._probe.request(context.clock.monotonic_s())

    def pump(self) -> None:
        """Take an answer that has come. Call once a tick; never waits."""
        now_s = self._context.clock.monotonic_s()
        if self._probe.poll(now_s) is not None:
            self._told_s = now_s

    def snapshot(self) -> Snapshot | None:
        """The machine now; None while a reading of its GPUs is awaited."""
        self.pump()
        now_s = self._context.clock.monotonic_s()
        old = self._told_s is None or (bool(self._probe.latest.gpus) and now_s - self._told_s > FRESH_S)
        if old or self._probe.stale:
            self._probe.request(now_s)
            self.pump()
        if self._told_s is None or (old and self._probe.fileno() is not None):
            return None
        return self._probe.latest.with_host(read_host(self._context.home.root), self._told_s)

    def wake_fds(self) -> list[int]:
        handle = self._probe.fileno()
        return [] if handle is None else [handle]

    def close(self) -> None:
        self._probe.close()
