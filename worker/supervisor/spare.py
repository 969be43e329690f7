"""A supervisor that was started before it is needed waits here for its segment.

Standard library only, imports nothing of ours. Through a socket come the segment's folder and, as a descriptor, the
lock of its run; while it is under way the lock stays taken. The end of the socket is the end of the worker: then a
spare has nothing to wait for.
"""

# The module under `socket`: that one brings selectors and enums that a supervisor has no use for, 8 ms and 1 MiB.
import _socket
import array
import os
from pathlib import Path

LONGEST_PATH = 4096


def wait_for_segment(channel: int) -> tuple[Path, int] | None:
    """(folder, descriptor of the run's lock); None when the worker is gone. Turns stderr to the segment's own log."""
    listening = _socket.socket(fileno=channel)
    descriptors = array.array("i")
    data, extra, _, _ = listening.recvmsg(LONGEST_PATH, _socket.CMSG_SPACE(descriptors.itemsize))
    listening.close()
    for level, kind, body in extra:
        if (level, kind) == (_socket.SOL_SOCKET, _socket.SCM_RIGHTS):
            descriptors.frombytes(body[: descriptors.itemsize])
    if not data or not descriptors:
        return None
    os.set_inheritable(descriptors[0], False)
    folder = Path(os.fsdecode(data))
    log = os.open(folder / "supervisor.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600)
    os.dup2(log, 2)
    os.close(log)
    return folder, descriptors[0]
