"""Lets a chosen process fail to open, read or stat one of our files, at the outermost edge: below its C library.

    fault = Fault("worker", "exit.json", "open", errno.EMFILE)
    bench.worker("--drain", env=fault.environment(library, folder / "struck"))

The library is compiled from failing_reads.c and preloaded; everything that the process starts has it too, so a worker's
environment is enough for its supervisors. A leader's environment is that of the shell that queued it.
"""

import errno
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent / "failing_reads.c"
WHO = {"worker": " worker ", "supervisor": "worker/supervisor", "doctor": " doctor", "command": "backprop "}
"""Who is to fail, by what only its command line holds."""


@dataclass(frozen=True)
class Fault:
    """One error of reading. `who`: see `WHO`. `call`: open, read or stat. `nth`: which call fails; 0 for each."""

    who: str
    file: str
    call: str
    number: int
    nth: int = 1

    def __str__(self) -> str:
        return f"{self.who}, {self.call} {self.nth} of {self.file}: {errno.errorcode[self.number]}"

    def environment(self, library: Path, mark: Path) -> dict[str, str]:
        """Return the variables for the process. `mark`: a file that the first failing call makes."""
        return {
            "LD_PRELOAD": str(library),
            "FAULT_WHO": WHO[self.who],
            "FAULT_FILE": self.file,
            "FAULT_CALL": self.call,
            "FAULT_ERRNO": str(self.number),
            "FAULT_NTH": str(self.nth),
            "FAULT_MARK": str(mark),
        }


def build_library(folder: Path, source: Path = SOURCE) -> Path:
    """Compile a library into `folder`. Skips the test where no C compiler is."""
    return compiled(source, folder / f"{source.stem}.so")


def compiled(source: Path, library: Path) -> Path:
    """Compile a library to preload. Skips the test where no C compiler is."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip(f"no C compiler here to build {library.name} with")
    flags = ("-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror")
    subprocess.run([compiler, *flags, "-o", str(library), str(source), "-ldl"], check=True)
    return library
