"""Receives segments for a supervisor that was started before it is needed.

A segment's folder comes through a socket, together with the descriptors of its locks: the run's, and the promise of its
GPUs. They stay taken while it is under way. When the worker ends, so does the socket, and a supervisor without a
segment ends too. Standard library only, imports nothing of Backprop.
"""

# The module under `socket`: that one brings selectors and enums that a supervisor has no use for, 8 ms and 1 MiB.
import _socket
import array
import fcntl
import os
import signal
from collections.abc import Iterable
from pathlib import Path

import files

LONGEST_PATH = 4096
MOST_LOCKS = 2
READY = b"ready"
ENDED = b"ended"


class Channel:
    """The supervisor's end of the socket."""

    def __init__(self, descriptor: int) -> None:
        # A leader that inherited it could report an end in the supervisor's name.
        os.set_inheritable(descriptor, False)
        self._socket = _socket.socket(fileno=descriptor)

    def next_segment(self) -> tuple[Path, list[int]] | None:
        """Wait for a segment; return its folder and the descriptors of its locks, or None once the worker is gone.

        Turns stderr to the segment's `supervisor.log`. Raises OSError.
        """
        descriptors = array.array("i")
        try:
            data, extra, _, _ = self._socket.recvmsg(
                LONGEST_PATH, _socket.CMSG_SPACE(MOST_LOCKS * descriptors.itemsize)
            )
        except ConnectionResetError:  # the worker ended before it had read the last report
            return None
        for level, kind, body in extra:
            if (level, kind) == (_socket.SOL_SOCKET, _socket.SCM_RIGHTS):
                descriptors.frombytes(body[: len(body) - len(body) % descriptors.itemsize])
        if not data or not descriptors:
            return None
        for descriptor in descriptors:
            os.set_inheritable(descriptor, False)
        folder = Path(os.fsdecode(data))
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW
        log = files.open_regular(folder / "supervisor.log", flags)
        os.dup2(log, 2)
        os.close(log)
        return folder, list(descriptors)

    def report(self, word: bytes) -> bool:
        """Report to the worker that this supervisor is `READY`, or free again (`ENDED`); False when the worker is
        gone."""
        try:
            self._socket.send(word)
        except OSError:
            return False
        return True


def is_released(folder: Path) -> bool:
    """Return whether nobody is about to signal the supervisor of an ended segment. Who comes later finds its end."""
    try:
        order = files.open_regular(folder / "order.json", os.O_RDONLY | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        fcntl.flock(order, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    finally:
        os.close(order)
    return True


def is_clean(control: Iterable[signal.Signals]) -> bool:
    """Return whether the segment left no child behind, living or dead. Discards control signals that are pending."""
    while signal.sigtimedwait(control, 0) is not None:
        pass
    try:
        os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        return True
    return False
