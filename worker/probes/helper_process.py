"""Starts, asks, reads and kills one helper process, and never waits for it."""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Final

MAX_ANSWER_BYTES: Final = 1 << 20

_READ_BYTES: Final = 1 << 16


class HelperProcess:
    """One helper. The constructor starts it and raises OSError if it cannot. No method waits."""

    def __init__(self, options: Sequence[str], environment: Mapping[str, str] | None) -> None:
        self._stderr_fd = os.memfd_create("gpu-probe-stderr")
        # -P and cwd="/": no file in the folder the worker was started in can pose as one of our modules.
        argv = [sys.executable, "-P", "-m", "backprop.worker.probes.helper", *options]
        try:
            self._process = subprocess.Popen(
                argv,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._stderr_fd,
                cwd="/",
                env=environment,
                bufsize=0,
                start_new_session=True,  # Ctrl-C is for the worker; the helper's tools are killed with it
            )
        except OSError:
            os.close(self._stderr_fd)
            raise
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._in, self._out = self._process.stdin, self._process.stdout
        self._received = bytearray()
        os.set_blocking(self._in.fileno(), False)
        os.set_blocking(self._out.fileno(), False)

    @property
    def out_fd(self) -> int:
        """The descriptor that becomes readable when an answer comes."""
        return self._out.fileno()

    def ask(self) -> bool:
        """Send one request; False if the helper is not there any more."""
        try:
            return os.write(self._in.fileno(), b"\n") == 1
        except OSError:
            return False

    def read_line(self) -> bytes | None:
        """Return one whole line; b"" at the end of output, or if a line is endless; None if there is none yet."""
        while b"\n" not in self._received:
            try:
                chunk = os.read(self._out.fileno(), _READ_BYTES)
            except BlockingIOError:
                return None
            self._received += chunk
            if not chunk or len(self._received) > MAX_ANSWER_BYTES:
                return b""
        line, _, rest = self._received.partition(b"\n")
        self._received = rest
        return bytes(line)

    def last_words(self) -> str:
        """Return its exit code and the last line of its stderr, to end a sentence with; "" if neither is known."""
        size = os.fstat(self._stderr_fd).st_size
        text = os.pread(self._stderr_fd, 2048, max(0, size - 2048)).decode(errors="replace").strip()
        line = text.splitlines()[-1] if text else ""
        return self._ending() + (f": {line}" if line else "")

    def _ending(self) -> str:
        """Say how it ended, without reaping it: `kill` needs its process group to stay its own."""
        try:
            status = os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return ""
        if status is None:
            return ""
        return f" with {'exit code' if status.si_code == os.CLD_EXITED else 'signal'} {status.si_status}"

    def kill(self) -> None:
        """Kill it and its tools, and close what connects it."""
        for stream in (self._in, self._out):
            stream.close()
        os.close(self._stderr_fd)
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def gone(self) -> bool:
        """Reap it if it is dead; return whether it was."""
        return self._process.poll() is not None

    def forget(self) -> None:
        """Give it up for good: it is stuck in the kernel, and init will reap it."""
        self._process.returncode = -signal.SIGKILL
