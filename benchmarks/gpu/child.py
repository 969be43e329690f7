"""A process that holds memory on one GPU through PyTorch, started as a worker starts a run, and what it says."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.gpu import finding
from benchmarks.gpu.finding import CannotCheck
from benchmarks.workbench import wait_until

TRAINER = Path(__file__).with_name("trainer.py")
START_S = 180.0
"""The first import of torch after a boot reads gigabytes."""


class Holder:
    def __init__(self, process: subprocess.Popen[bytes], out: Path) -> None:
        self.process = process
        self._out = out

    def lines(self) -> list[str]:
        return self._out.read_text(errors="replace").splitlines()

    def beats(self) -> list[tuple[int, int]]:
        """(free, total) in MiB by torch, for each time it has filled its memory."""
        told = [line.split() for line in self.lines() if line.startswith("beat ")]
        return [(int(words[2]), int(words[3])) for words in told if len(words) == 4]

    def next_beat(self) -> tuple[int, int]:
        """What it says once it has filled its memory once more from now on."""
        before = len(self.beats())
        wait_until(lambda: len(self.beats()) > before + 1)
        return self.beats()[-1]


@contextmanager
def holder(uuid: str, mib: int) -> Generator[Holder]:
    """A child that has taken `mib`. Raises CannotCheck with its words when it cannot begin."""
    with tempfile.TemporaryDirectory(prefix="backprop-gpu-") as folder:
        out = Path(folder) / "out"
        with out.open("wb") as file:
            process = subprocess.Popen(
                [sys.executable, TRAINER, "--device", finding.DEVICE, "hold", "--mib", str(mib)],
                stdout=file,
                stderr=subprocess.STDOUT,
                env=os.environ | {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": uuid},
            )
        child = Holder(process, out)
        try:
            wait_until(lambda: child.beats() or process.poll() is not None, timeout_s=START_S)
            if process.poll() is not None:
                raise CannotCheck(f"the CUDA process ended at once: {' '.join(child.lines()[-1:])}")
            yield child
        finally:
            process.kill()
            process.wait()
