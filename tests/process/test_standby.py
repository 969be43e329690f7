"""A supervisor that is not needed any more, and does not end by itself."""

import socket
import subprocess
import time

from backprop.worker.executor.standby import KEPT, StandbyPool, StandbySupervisor


def _deaf(_: int) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(["sleep", "600"])


def test_one_too_many_that_hangs_holds_up_no_tick_and_is_killed() -> None:
    pool = StandbyPool(_deaf)
    pairs = [socket.socketpair() for _ in range(KEPT + 1)]
    standbys = [StandbySupervisor(_deaf(0), near) for near, _ in pairs]
    begun_s = time.monotonic()
    for standby in standbys:
        pool.keep(standby)
    assert time.monotonic() - begun_s < 2
    assert [standby.child.poll() for standby in standbys] == [None] * KEPT + [-9]
    pool.close()
    assert [standby.child.returncode for standby in standbys] == [-9] * (KEPT + 1)
    for _, far in pairs:
        far.close()
