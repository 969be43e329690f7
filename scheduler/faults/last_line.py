"""Tells which fault that decides over retries ended a segment, by its exit status and its traceback's last line.

The kind decides whether a retry can help, and lets a group be held when its members fail the same way.
"""

import re
from typing import Final

from backprop.scheduler.faults.kinds import Fault

EX_USAGE: Final = (2, 64)
"""argparse, click and getopt users exit 2; sysexits.h calls 64 EX_USAGE."""

DISK_FULL: Final = re.compile(
    r"No space left on device|\[Errno 28\]|ENOSPC|Disk quota exceeded|\[Errno 122\]"
)
PORT_IN_USE: Final = re.compile(
    r"address already in use|\bEADDRINUSE\b|\berrno:? ?98\b|another process is utilizing it"  # accelerate
    r"|\bport `?\d+`? (?:is|was) (?:already )?in use|could not bind to port \d+",  # Flask, TensorBoard
    re.IGNORECASE,
)
_PORT = re.compile(
    r"\bport\b[:= `']{1,3}(?P<port>\d{1,5})\b|\('[^']*', (?P<pair>\d{1,5})\b"
    r"|(?<!errno):(?P<address>\d{4,5})\b(?![\]:])",
    re.IGNORECASE,
)
_IMPORT = re.compile(
    r"\b(?:ModuleNotFoundError|ImportError)\b|cannot open shared object file|: command not found$"
)
_HOST_MEMORY = re.compile(
    r"\b(?:_Array)?MemoryError\b|std::bad_alloc|Cannot allocate memory|can't allocate memory"
)
_USAGE = re.compile(
    r"\berror: |\bUsage: |unrecognized (?:argument|option)|No such option|invalid choice", re.IGNORECASE
)


def fault_of(exit_code: int | None, last_line: str | None) -> Fault | None:
    """Return the fault of a segment that ended by itself; None for an unknown one."""
    line = last_line or ""
    if DISK_FULL.search(line):
        return Fault.DISK_FULL
    if PORT_IN_USE.search(line):
        return Fault.PORT_IN_USE
    if _HOST_MEMORY.search(line):
        return Fault.HOST_MEMORY
    if _IMPORT.search(line):
        return Fault.IMPORT
    if exit_code in EX_USAGE and _USAGE.search(line):
        return Fault.USAGE
    return None


def port_in(line: str) -> int | None:
    """Return the port that a line names which reports a taken one; None if it names none."""
    match = _PORT.search(line)
    port = int(next(group for group in match.groups() if group is not None)) if match is not None else 0
    return port if 0 < port < 65536 else None
