"""Keeps supervisors started, so that a segment does not wait for an interpreter (25 ms and more).

One waits at any time. It is handed its segment through a socket; where that fails, a supervisor is started in the
ordinary way. After a clean end it reports that and waits for the next segment. It ends by itself when its worker does,
however the worker ends: the socket's other end closes.
"""

import contextlib
import os
import socket
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ENDED: Final = b"ended"
KEPT: Final = 4
"""At most this many wait: each takes 8 MiB."""

Start = Callable[[int], "subprocess.Popen[bytes]"]


@dataclass(frozen=True)
class StandbySupervisor:
    """A supervisor that was given a segment. `channel`: becomes readable when the supervisor is free again, or gone."""

    child: "subprocess.Popen[bytes]"
    channel: socket.socket

    def is_free(self) -> bool:
        """Return whether it has reported that its segment ended cleanly and that it waits for another."""
        try:
            return self.channel.recv(len(ENDED), socket.MSG_DONTWAIT) == ENDED
        except OSError:
            return False

    def dismiss(self) -> None:
        """End and collect it."""
        self.channel.close()
        try:
            self.child.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self.child.kill()
            self.child.wait()


class StandbyPool:
    """The supervisors that wait for a segment."""

    def __init__(self, start: Start) -> None:
        """`start`: starts a supervisor that waits on the descriptor it is given, and inherits only that."""
        self._start = start
        self._waiting: list[StandbySupervisor] = []

    def prepare(self) -> None:
        """Have one ready. Does nothing when none can be started now."""
        for standby in [standby for standby in self._waiting if standby.child.poll() is not None]:
            self._waiting.remove(standby)
            standby.channel.close()
        if self._waiting:
            return
        with contextlib.suppress(OSError):
            near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            with far:
                try:
                    self._waiting.append(StandbySupervisor(self._start(far.fileno()), near))
                except BaseException:
                    near.close()
                    raise

    def take(self, folder: Path, lock: int) -> StandbySupervisor | None:
        """Hand `folder` and a copy of `lock` to a waiting supervisor; None when none can take them."""
        while self._waiting:
            standby = self._waiting.pop()
            if standby.child.poll() is None:
                with contextlib.suppress(OSError):
                    socket.send_fds(standby.channel, [os.fsencode(folder)], [lock])
                    return standby
            standby.channel.close()
        return None

    def give_back(self, standby: StandbySupervisor) -> None:
        """Take back a supervisor that is free again."""
        if len(self._waiting) < KEPT:
            self._waiting.append(standby)
        else:
            standby.dismiss()

    def close(self) -> None:
        """End and collect all that wait."""
        for standby in self._waiting:
            standby.dismiss()
        self._waiting.clear()
