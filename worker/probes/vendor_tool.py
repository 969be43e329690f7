"""Runs a vendor's tool with a deadline that holds.

`subprocess.run(timeout=...)` kills at its timeout and then waits without limit; a tool stuck in the driver
(state D) does not die. Here it is killed and left behind, as is one whose output is endless.
"""

import contextlib
import os
import select
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec

TOOL_FOLDERS: Final = tuple(
    Path(folder) for folder in ("/usr/bin", "/usr/local/bin", "/usr/lib/wsl/lib", "/opt/rocm/bin", "/opt/bin")
)
MAX_OUTPUT_BYTES: Final = 1 << 20
DEATH_S: Final = 0.25
"""How long a killed tool is waited for."""
_POLL_S: Final = 0.01


class ToolError(Exception):
    """The tool cannot be used now; the text says why."""


class ToolResult(msgspec.Struct, frozen=True):
    """What a tool printed. `code`: None if it had to be killed."""

    code: int | None
    out: str
    err: str

    def complaint(self) -> str:
        """Return the last line it printed, for a message; errors first."""
        lines = (self.err.strip() or self.out.strip()).splitlines()
        return lines[-1].strip()[:200] if lines else "it printed nothing"


def find_tool(name: str, folders: Sequence[Path] | None = None) -> Path | None:
    """Find `name` in the vendors' usual folders, then in PATH (absolute entries only, so never in a project's folder by
    way of "."). `folders`: search these instead. None if it is not there."""
    if folders is None:
        entries = os.environ.get("PATH", "").split(os.pathsep)
        in_path = (Path(entry) for entry in entries if entry.startswith("/"))
        folders = (*TOOL_FOLDERS, *in_path)
    for folder in folders:
        path = folder / name
        if path.is_file() and os.access(path, os.X_OK):
            return path
    return None


def ask_tool(tool: Path, arguments: Sequence[str], end_s: float) -> ToolResult:
    """Run the tool until the monotonic time `end_s`; return its result whatever the exit code. Raises ToolError."""
    left_s = end_s - time.monotonic()
    if left_s <= 0:
        raise ToolError(f"{tool} is too slow")
    try:
        result = run_tool([tool, *arguments], left_s)
    except OSError as error:
        raise ToolError(f"{tool} cannot be run: {error.strerror}") from error
    if result.code is None and len(result.out) + len(result.err) > MAX_OUTPUT_BYTES:
        raise ToolError(f"{tool} prints without end")
    if result.code is None:
        raise ToolError(f"{tool} hangs: no answer in {left_s:.0f} s")
    return result


def run_tool(argv: Sequence[str | Path], deadline_s: float) -> ToolResult:
    """Run a command for at most `deadline_s`. Raises OSError if it cannot be started at all."""
    process = subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd="/",
        bufsize=0,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    with process.stdout, process.stderr:
        output = {process.stdout.fileno(): bytearray(), process.stderr.fileno(): bytearray()}
        code = _collect(process, output, time.monotonic() + deadline_s)
    out, err = (bytes(text).decode(errors="replace") for text in output.values())
    return ToolResult(code, out, err)


def _collect(process: subprocess.Popen[bytes], output: Mapping[int, bytearray], end_s: float) -> int | None:
    """Fill `output` (by file descriptor) until the tool ends; None if it had to be killed.

    Not until the pipes end: a child of the tool may hold them open for as long as it likes."""
    for fd in output:
        os.set_blocking(fd, False)
    open_fds = set(output)
    while True:
        code = process.poll()
        for fd in select.select(open_fds, (), (), 0 if code is not None else _POLL_S)[0]:
            chunk = os.read(fd, MAX_OUTPUT_BYTES)
            output[fd].extend(chunk)
            if not chunk:
                open_fds.discard(fd)
        if code is not None:
            return code
        endless = any(len(text) > MAX_OUTPUT_BYTES for text in output.values())
        if endless or time.monotonic() >= end_s:
            process.kill()
            # If it does not die of that, the kernel keeps it and nobody waits.
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(DEATH_S)
            return None
        if not open_fds:
            time.sleep(_POLL_S)
