"""Names the kinds of trouble that end a segment. On the path of every `backprop run`, so without dataclasses."""

from enum import StrEnum
from typing import Final


class Fault(StrEnum):
    """A kind of failure. The values are stored and shown.

    Those up to STARTED_OVER decide over retries and groups, and are stored with the run. The others are told of a log
    when somebody looks at it: see `triage`.
    """

    GPU_MEMORY = "out of GPU memory"
    HOST_MEMORY = "out of memory"
    DISK_FULL = "disk full"
    PORT_IN_USE = "port in use"
    IMPORT = "import error"
    USAGE = "usage error"
    NAN = "NaN loss"
    HUNG = "hung"
    STARTED_OVER = "started over"
    OOM_KILLED = "killed by the OOM killer"
    SEGFAULT = "segmentation fault"
    MISSING_FILE = "missing file"
    PERMISSION = "permission denied"
    DIVISION = "division by zero"
    ASSERTION = "assertion failed"
    RUNTIME = "runtime error"
    CUDA = "CUDA error"
    DEVICE = "device mismatch"
    NCCL = "NCCL error"
    NETWORK = "network unreachable"
    DATA_WORKER = "data worker died"
    SYNTAX = "syntax error"
    EXCEPTION = "exception"
    UNKNOWN = "unknown"


WOULD_FAIL_AGAIN: Final = frozenset({Fault.IMPORT, Fault.USAGE})
"""Faults that the same command has again in the same environment: no retry helps, and its siblings have them too."""

OF_THE_HOST: Final = frozenset({Fault.DISK_FULL, Fault.PORT_IN_USE})
"""Faults that come from what else goes on here: the run is tried again, and none of its own retries is used."""

CANNOT_PASS: Final = WOULD_FAIL_AGAIN | {Fault.SYNTAX}
"""Faults of which one is enough to know that the same command has it again."""

MAY_PASS: Final = OF_THE_HOST | {Fault.NETWORK, Fault.OOM_KILLED, Fault.UNKNOWN}
"""Faults that come from elsewhere: even twice at one place says nothing about the next time."""
