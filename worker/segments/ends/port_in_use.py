"""Tells from the end of its log whether a failed segment found its port taken."""

import re
from pathlib import Path
from typing import Final

from backprop.scheduler.faults.last_line import PORT_IN_USE
from backprop.worker.segments.ends.gpu_oom import Trouble, reported

_NATIVE: Final = re.compile(
    r"Address already in use$|Port \d+ is in use\b|(?:TensorBoard|ERROR|error)\b.*", re.IGNORECASE
)
# Programs also say so before they take the next port and go on.
_PORT: Final = Trouble(PORT_IN_USE, native=_NATIVE, within=5)


def port_in_use(log: Path) -> str | None:
    """Return the line that says that a port was taken and ended the program; None if the log does not say so. `log`: of
    a segment that failed by itself. Raises OSError when it cannot be read now."""
    return reported(log, _PORT)
