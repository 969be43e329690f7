"""Has the Python stacks of a hanging segment written into its log.

A process that has registered for it, as our integrations do at launch, writes them itself when it gets a signal. That
signal kills whoever has no handler for it. So it is sent only to a process that is noted as registered, is still the
very same, and catches it just now. Where there is none, `py-spy` is asked, if it is installed.
"""

import contextlib
import os
import shutil
import subprocess
from collections.abc import Collection
from pathlib import Path
from typing import Final

from backprop.scheduler.home.file_reading import open_regular
from backprop.worker.supervisor import process_tree

REGISTERED: Final = "stack-dumps"
"""A file in the segment's folder. A line for each process: pid, start ticks, signal."""
SETTLE_S: Final = 2.0
"""Long enough for a dump. The stop signal comes afterwards, since it may end the process at once."""
PATIENCE_S: Final = 15.0
MOST_BYTES: Final = 65536
MOST_ASKED: Final = 4
_REAL_TIME: Final = range(34, 65)
_READ: Final = os.O_RDONLY | os.O_NOFOLLOW
_APPEND: Final = os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW


class StackDump:
    """One dump of all stacks of a segment. `now_s`: on the monotonic clock."""

    def __init__(self, folder: Path, pids: Collection[int], now_s: float) -> None:
        """Ask for them. `pids`: of the segment's processes. Raises nothing: a hang is ended without stacks too."""
        self._began_s = now_s
        self._asked: list[subprocess.Popen[bytes]] = []
        if not _signal_registered(folder, pids):
            with contextlib.suppress(OSError):
                self._ask_py_spy(folder, pids)

    def is_done(self, now_s: float) -> bool:
        """Return whether no more is to be waited for."""
        running = [one for one in self._asked if one.poll() is None]
        if running and now_s - self._began_s >= PATIENCE_S:
            self.close()
            return True
        return not running and now_s - self._began_s >= SETTLE_S

    def close(self) -> None:
        """End what is still asking."""
        for one in self._asked:
            if one.poll() is None:
                one.kill()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    one.wait(0.2)  # killed: no tick waits for it longer

    def _ask_py_spy(self, folder: Path, pids: Collection[int]) -> None:
        program = shutil.which("py-spy")
        if program is None:
            return
        pythons = [pid for pid in sorted(pids) if _is_python(pid)][:MOST_ASKED]
        with os.fdopen(open_regular(folder / "log", _APPEND), "ab") as log:
            for pid in pythons:
                self._asked.append(
                    subprocess.Popen(
                        [program, "dump", "--nonblocking", "--pid", str(pid)],
                        stdin=subprocess.DEVNULL,
                        stdout=log,
                        stderr=subprocess.DEVNULL,
                        cwd="/",
                        start_new_session=True,
                    )
                )


def _signal_registered(folder: Path, pids: Collection[int]) -> bool:
    """Signal those that have registered; return whether there is one."""
    lines: list[bytes] = []
    with contextlib.suppress(OSError), os.fdopen(open_regular(folder / REGISTERED, _READ), "rb") as file:
        lines = file.read(MOST_BYTES).splitlines()
    sent = False
    for line in lines:
        fields = [int(field) for field in line.split() if field.isdigit()]
        if len(fields) != 3 or fields[0] not in pids or fields[2] not in _REAL_TIME:
            continue
        process = process_tree.Process(fields[0], fields[1])
        if _catches(*fields[::2]):
            sent = process_tree.send(process, fields[2]) or sent
    return sent


def _catches(pid: int, number: int) -> bool:
    """Return whether a process has a handler for a signal now."""
    with contextlib.suppress(OSError, ValueError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("SigCgt:"):
                return bool(int(line.split()[1], 16) >> (number - 1) & 1)
    return False


def _is_python(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/exe").readlink().name.startswith("python")
    return False
