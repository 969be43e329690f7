"""Tells which kind of fault ended a segment, from its exit status and the last line of its traceback.

The kind decides whether a retry can help, and lets a group be held when its members fail the same way.
"""

import re
from enum import StrEnum
from typing import Final


class Fault(StrEnum):
    """A kind of failure. The values are stored and shown."""

    GPU_MEMORY = "out of GPU memory"
    HOST_MEMORY = "out of memory"
    DISK_FULL = "disk full"
    IMPORT = "import error"
    USAGE = "usage error"
    NAN = "NaN loss"
    STARTED_OVER = "started over"


WOULD_FAIL_AGAIN: Final = frozenset({Fault.IMPORT, Fault.USAGE})
"""Faults that the same command has again in the same environment: no retry helps, and its siblings have them too."""

EX_USAGE: Final = (2, 64)
"""argparse, click and getopt users exit 2; sysexits.h calls 64 EX_USAGE."""

_DISK_FULL = re.compile(r"No space left on device|\[Errno 28\]|ENOSPC|Disk quota exceeded|\[Errno 122\]")
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
    if _DISK_FULL.search(line):
        return Fault.DISK_FULL
    if _HOST_MEMORY.search(line):
        return Fault.HOST_MEMORY
    if _IMPORT.search(line):
        return Fault.IMPORT
    if exit_code in EX_USAGE and _USAGE.search(line):
        return Fault.USAGE
    return None
