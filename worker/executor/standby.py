"""Supervisors kept started, so that a segment does not wait for an interpreter (25 ms and more).

One waits at any time. It is handed its segment through a socket; where that fails, a supervisor is started in the
ordinary way. After a clean end it says so and waits for the next. It ends by itself when its worker does, however that
ends: the socket's other end closes.
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
"""More than this many do not wait: each takes 8 MiB."""

Start = Callable[[int], "subprocess.Popen[bytes]"]


@dataclass(frozen=True)
class StandbySupervisor:
    """A supervisor that was given a segment. `channel`: becomes readable when it is free again, or gone."""

    child: "subprocess.Popen[bytes]"
    channel: socket.socket

    def is_free(self) -> bool:
        """Whether it has said that its segment has ended cleanly and that it waits for another."""
        try:
            return self.channel.recv(len(ENDED), socket.MSG_DONTWAIT) == ENDED
        except OSError:
            return False


class StandbyPool:
    def __init__(self, start: Start) -> None:
        """`start`: starts a supervisor that waits on the descriptor it is given, and inherits that alone."""
        self._start = start
        self._waiting: list[StandbySupervisor] = []

    def prepare(self) -> None:
        """Have one ready. Does nothing where none can be started now."""
        for one in [one for one in self._waiting if one.child.poll() is not None]:
            self._waiting.remove(one)
            one.channel.close()
        if self._waiting:
            return
        with contextlib.suppress(OSError):
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            with theirs:
                try:
                    self._waiting.append(StandbySupervisor(self._start(theirs.fileno()), ours))
                except BaseException:
                    ours.close()
                    raise

    def take(self, folder: Path, lock: int) -> StandbySupervisor | None:
        """Hand `folder` and a copy of `lock` to one that waits; None when there is none that can take them."""
        while self._waiting:
            one = self._waiting.pop()
            if one.child.poll() is None:
                with contextlib.suppress(OSError):
                    socket.send_fds(one.channel, [os.fsencode(folder)], [lock])
                    return one
            one.channel.close()
        return None

    def give_back(self, one: StandbySupervisor) -> None:
        """It is free again."""
        if len(self._waiting) < KEPT:
            self._waiting.append(one)
        else:
            _let_go(one)

    def close(self) -> None:
        """Let those that wait go, and collect them."""
        for one in self._waiting:
            _let_go(one)
        self._waiting.clear()


def _let_go(one: StandbySupervisor) -> None:
    one.channel.close()
    try:
        one.child.wait(timeout=5)
    except subprocess.TimeoutExpired:
        one.child.kill()
        one.child.wait()
