"""One supervisor kept started, so that a segment does not wait for an interpreter (25 ms and more).

It is handed its segment through a socket; where that fails, a supervisor is started in the ordinary way. It ends by
itself when its worker does, however that ends: the socket's other end closes.
"""

import contextlib
import os
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

Start = Callable[[int], "subprocess.Popen[bytes]"]


class Spare:
    def __init__(self, start: Start) -> None:
        """`start`: starts a supervisor that waits on the descriptor it is given, and inherits that alone."""
        self._start = start
        self._waiting: tuple[subprocess.Popen[bytes], socket.socket] | None = None

    def prepare(self) -> None:
        """Have one ready. Does nothing where none can be started now."""
        if self._waiting is not None and self._waiting[0].poll() is None:
            return
        self.close()
        with contextlib.suppress(OSError):
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            with theirs:
                try:
                    self._waiting = self._start(theirs.fileno()), ours
                except BaseException:
                    ours.close()
                    raise

    def take(self, folder: Path, lock: int) -> "subprocess.Popen[bytes] | None":
        """Hand `folder` and a copy of `lock` to the one that waits; None when there is none that can take them."""
        if self._waiting is None:
            return None
        child, ours = self._waiting
        self._waiting = None
        with ours:
            if child.poll() is None:
                with contextlib.suppress(OSError):
                    socket.send_fds(ours, [os.fsencode(folder)], [lock])
                    return child
        # It sees the end of its socket and goes; not waited for here.
        child.poll()
        return None

    def close(self) -> None:
        """Let the one that waits go, and collect it."""
        if self._waiting is not None:
            child, ours = self._waiting
            self._waiting = None
            ours.close()
            try:
                child.wait(timeout=5)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
