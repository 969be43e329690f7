"""A supervisor that was started before it is needed waits here for its segment, and after a clean end for the next.

Standard library only, imports nothing of ours. Through a socket come a segment's folder and, as a descriptor, the lock
of its run; while that is under way the lock stays taken. The end of the socket is the end of the worker: then a
supervisor without a segment has nothing to wait for.
"""

# The module under `socket`: that one brings selectors and enums that a supervisor has no use for, 8 ms and 1 MiB.
import _socket
import array
import os
import signal
from collections.abc import Iterable
from pathlib import Path

LONGEST_PATH = 4096
ENDED = b"ended"


class Channel:
    """The supervisor's end."""

    def __init__(self, descriptor: int) -> None:
        # A leader that inherited it could speak in our name.
        os.set_inheritable(descriptor, False)
        self._socket = _socket.socket(fileno=descriptor)

    def next_segment(self) -> tuple[Path, int] | None:
        """(folder, descriptor of the run's lock); None once the worker is gone. Turns stderr to the segment's log."""
        descriptors = array.array("i")
        data, extra, _, _ = self._socket.recvmsg(LONGEST_PATH, _socket.CMSG_SPACE(descriptors.itemsize))
        for level, kind, body in extra:
            if (level, kind) == (_socket.SOL_SOCKET, _socket.SCM_RIGHTS):
                descriptors.frombytes(body[: descriptors.itemsize])
        if not data or not descriptors:
            return None
        os.set_inheritable(descriptors[0], False)
        folder = Path(os.fsdecode(data))
        log = os.open(
            folder / "supervisor.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600
        )
        os.dup2(log, 2)
        os.close(log)
        return folder, descriptors[0]

    def say_ended(self) -> bool:
        """Tell the worker that this one is free again; False when there is none any more."""
        try:
            self._socket.send(ENDED)
        except OSError:
            return False
        return True


def is_clean(control: Iterable[signal.Signals]) -> bool:
    """Whether nothing of the segment is left in this process: no child, living or dead. Forgets what it was asked
    while it ended."""
    while signal.sigtimedwait(control, 0) is not None:
        pass
    try:
        os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        return True
    return False
