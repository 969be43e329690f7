"""Starts a process that holds memory on one GPU through PyTorch, and reads what it prints."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.gpu.finding import CannotCheck
from benchmarks.workbench import wait_until

TRAINER = Path(__file__).with_name("trainer.py")
START_S = 180.0
"""The first import of torch after a boot reads gigabytes."""


class Holder:
    """The process while it lives. `out`: the file that its output goes to."""

    def __init__(self, process: subprocess.Popen[bytes], out: Path) -> None:
        self.process = process
        self._out = out

    def lines(self) -> list[str]:
        """Return what it has printed so far."""
        return self._out.read_text(errors="replace").splitlines()

    def beats(self) -> list[tuple[int, int]]:
        """Return (free, total) in MiB by torch, for each time it has filled its memory."""
        words_of_beats = [line.split() for line in self.lines() if line.startswith("beat ")]
        return [(int(words[2]), int(words[3])) for words in words_of_beats if len(words) == 4]

    def next_beat(self) -> tuple[int, int]:
        """Wait until it has filled its memory once more, and return that beat. Raises TimeoutError."""
        before = len(self.beats())
        wait_until(lambda: len(self.beats()) > before + 1)
        return self.beats()[-1]


@contextmanager
def holder(uuid: str, mib: int) -> Generator[Holder]:
    """Run a child that has taken `mib`. Raises CannotCheck with its last line when it cannot begin, TimeoutError."""
    with tempfile.TemporaryDirectory(prefix="backprop-gpu-") as folder:
        out = Path(folder) / "out"
        with out.open("wb") as file:
            process = subprocess.Popen(
                [sys.executable, TRAINER, "hold", "--mib", str(mib)],
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
