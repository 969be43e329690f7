"""Starting `cuda.py` as a child on one GPU, and reading what it says."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.workbench import wait_until

SCRIPT = Path(__file__).with_name("cuda.py")
USED_MIB = 1024


class GpuUser:
    """A child that holds USED_MIB on the GPU it was given."""

    def __init__(self, process: subprocess.Popen[bytes], out: Path) -> None:
        self.process = process
        self._out = out

    def lines(self) -> list[str]:
        return self._out.read_text(errors="replace").splitlines()

    def beats(self) -> int:
        """How often it has filled its memory."""
        return sum(line.startswith("beat ") for line in self.lines())


@contextmanager
def gpu_user(uuid: str) -> Generator[GpuUser]:
    """As a worker starts a run: PCI order, one UUID. Raises RuntimeError with its words when it cannot begin."""
    with tempfile.TemporaryDirectory(prefix="backprop-gpu-") as folder:
        out = Path(folder) / "out"
        with out.open("wb") as file:
            process = subprocess.Popen(
                [sys.executable, SCRIPT, str(USED_MIB)],
                stdout=file,
                stderr=subprocess.STDOUT,
                env=os.environ | {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": uuid},
            )
        user = GpuUser(process, out)
        try:
            wait_until(lambda: user.beats() > 0 or process.poll() is not None)
            if process.poll() is not None:
                raise RuntimeError(f"the CUDA process ended at once: {' '.join(user.lines())}")
            yield user
        finally:
            process.kill()
            process.wait()
