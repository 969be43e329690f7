"""Defines what is told of a segment that failed: its kind, its place in the user's code, and what to do."""

import msgspec

from backprop.scheduler.faults.kinds import Fault


class SegmentEnd(msgspec.Struct, frozen=True):
    """What is known of the end of a segment that failed.

    `known`: the kind, where the outcome or the supervisor tells it. `said`: why, in our own words, for one whose log
    tells nothing. `signal_name`: what ended its leader, such as "SIGKILL". `oom_kills`: how many processes the kernel
    killed meanwhile for want of memory, in its control group and on the machine; None where that is not known.
    `cwd`: its directory. `log`: the end of its output, any bytes.
    """

    exit_code: int | None = None
    signal_name: str | None = None
    oom_kills: tuple[int | None, int | None] = (None, None)
    known: Fault | None = None
    said: str | None = None
    cwd: str = "/"
    log: bytes = b""


class Place(msgspec.Struct, frozen=True):
    """A line of the user's own code. `file`: relative to the run's directory where it lies in it. `function`: empty
    where it is not known."""

    file: str
    line: int
    function: str


class Triage(msgspec.Struct, frozen=True):
    """What ended a segment. `message`: in the program's words. `place`: the last frame of the user's own code; None
    where no traceback shows one."""

    kind: Fault
    message: str | None
    place: Place | None
    remedy: str
