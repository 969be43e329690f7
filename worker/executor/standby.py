"""Keeps supervisors started, so that a segment does not wait for an interpreter (25 ms and more).

One waits at any time. It reports when it is ready, which also shows that this machine can start supervisors at all. It
is handed its segment through a socket; where that fails, a supervisor is started in the ordinary way. After a clean end
it reports that and waits for the next segment. It ends by itself when its worker does, however the worker ends: the
socket's other end closes.
"""

import contextlib
import os
import select
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import msgspec

READY: Final = b"ready"
ENDED: Final = b"ended"
KEPT: Final = 4
"""At most this many wait: each takes 8 MiB."""
DISMISS_S: Final = 0.25
"""How long a tick waits for one to end by itself: an idle one has nothing left to do."""
READY_WITHIN_S: Final = 30.0
"""An interpreter that takes longer to start is taken for one that hangs, for example on a share that is away."""

Start = Callable[[int], "subprocess.Popen[bytes]"]


class DiedAtStart(Exception):
    """A supervisor ended, or hung, before it was ready. The text says how."""


class StandbySupervisor(msgspec.Struct, frozen=True):
    """A supervisor that waits for a segment or was given one. `channel`: becomes readable when the supervisor is ready,
    free again, or gone. `started_s`: on the monotonic clock."""

    child: "subprocess.Popen[bytes]"
    channel: socket.socket
    started_s: float = msgspec.field(default_factory=time.monotonic)

    def heard(self) -> bytes | None:
        """Return its next report; empty when it is gone, None when there is none yet."""
        try:
            return self.channel.recv(len(ENDED), socket.MSG_DONTWAIT)
        except BlockingIOError:
            return None
        except OSError:
            return b""

    def is_free(self) -> bool:
        """Return whether it has reported that its segment ended cleanly and that it waits for another."""
        while (heard := self.heard()) == READY:
            pass
        return heard == ENDED

    def dismiss(self, patience_s: float) -> int | None:
        """End it, killed after `patience_s`, and wait that long once more. Return its exit code; None while it has
        none: one that hangs on a share that is away dies when that answers."""
        self.channel.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self.child.wait(timeout=patience_s)
        self.child.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self.child.wait(timeout=patience_s)
        return None


class StandbyPool:
    """The supervisors that wait for a segment. `awaited`: the channel of one that `make_ready` waits for."""

    def __init__(self, start: Start) -> None:
        """`start`: starts a supervisor that waits on the descriptor it is given, and inherits only that."""
        self._start = start
        self._ready: list[StandbySupervisor] = []
        self._starting: StandbySupervisor | None = None
        self._dismissed: list[StandbySupervisor] = []
        """Killed, and not collected yet."""
        self.awaited: socket.socket | None = None

    def prepare(self) -> None:
        """Have one ready, or starting. Does nothing when none can be started now."""
        if not self.is_ready() and self._starting is None:
            with contextlib.suppress(OSError):
                self._begin()

    def make_ready(self, fresh: bool, patience_s: float) -> bool:
        """Have one ready, and wait up to `patience_s` for it; return whether it is. `fresh`: a newly started one.

        Raises OSError when none can be started, DiedAtStart.
        """
        if self.is_ready() and not fresh:
            return True
        starting = self._starting or self._begin()
        self.awaited = starting.channel
        poll = select.poll()
        poll.register(starting.channel, select.POLLIN)
        poll.poll(patience_s * 1000)
        heard = starting.heard()
        if heard is None and time.monotonic() - starting.started_s < READY_WITHIN_S:
            return False
        self._starting = self.awaited = None
        if heard == READY:
            self.keep(starting)
            return True
        code = self._dismiss(starting)
        hangs = heard is None or code is None
        how = f"did not get ready within {READY_WITHIN_S:g} s" if hangs else f"exit code {code}"
        raise DiedAtStart(how)

    def is_ready(self) -> bool:
        """Return whether one waits that has been ready."""
        for standby in [standby for standby in self._ready if standby.child.poll() is not None]:
            self._ready.remove(standby)
            standby.channel.close()
        self._dismissed = [standby for standby in self._dismissed if standby.child.poll() is None]
        return bool(self._ready)

    def take(self, folder: Path, locks: Sequence[int]) -> StandbySupervisor | None:
        """Hand `folder` and copies of `locks` to a waiting supervisor; None when none can take them."""
        waiting = [*self._ready, *([self._starting] if self._starting is not None else [])]
        while waiting:
            standby = waiting.pop(0)
            if standby is self._starting:
                self._starting = self.awaited = None
            else:
                self._ready.remove(standby)
            if standby.child.poll() is None:
                with contextlib.suppress(OSError):
                    socket.send_fds(standby.channel, [os.fsencode(folder)], locks)
                    return standby
            standby.channel.close()
        return None

    def close(self) -> None:
        """End and collect all that wait."""
        for standby in [*self._ready, *([self._starting] if self._starting is not None else [])]:
            self._dismiss(standby)
        self._ready.clear()
        self._starting = self.awaited = None

    def keep(self, standby: StandbySupervisor) -> None:
        """Have a supervisor wait that is ready, or free again."""
        if len(self._ready) < KEPT:
            self._ready.append(standby)
        else:
            self._dismiss(standby)

    def _dismiss(self, standby: StandbySupervisor) -> int | None:
        code = standby.dismiss(DISMISS_S)
        if code is None:
            self._dismissed.append(standby)
        return code

    def _begin(self) -> StandbySupervisor:
        near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with far:
            try:
                self._starting = StandbySupervisor(self._start(far.fileno()), near)
            except BaseException:
                near.close()
                raise
        return self._starting
