"""Words why a segment failed, for the reason of its run."""

import re
from typing import Final

import msgspec

from backprop.scheduler.faults.kinds import Fault
from backprop.scheduler.outcome.segment_result import SegmentResult

_EXCEPTION_NAME: Final = re.compile(r"^(?:\w+\.)*\w*(?:Error|Exception): (?=\S)")


def why_failed(result: SegmentResult, fault: Fault | None) -> str:
    """Return what happened. A known fault comes first, then the line that shows it, without its exception's name."""
    if result.could_not_start is not None:
        return f"could not be started: {result.could_not_start}"
    if fault is Fault.PORT_IN_USE and result.port_in_use is not None:
        result = msgspec.structs.replace(result, last_line=result.port_in_use)
    elif fault is Fault.DISK_FULL and result.disk_full:
        result = msgspec.structs.replace(result, last_line="there was no room for its output")
    if result.signal_name is not None:
        hint = " (out of memory? see the kernel log)" if result.signal_name == "SIGKILL" else ""
        how = f"ended by {result.signal_name}{hint}"
    elif result.exit_code is None:
        how = "ended unseen: its supervisor was gone"
    elif fault is not None and result.last_line:
        return f"{fault}: {_EXCEPTION_NAME.sub('', result.last_line)} (exit code {result.exit_code})"
    else:
        how = f"exited {result.exit_code}"
    kind = f"{fault}: " if fault is not None else ""
    return f"{kind}{how}: {result.last_line}" if result.last_line else f"{kind}{how}"
