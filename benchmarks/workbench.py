"""Makes a home and a project folder for one measurement, with the installed command and workers that end with them."""

import atexit
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from backprop.scheduler.lifecycle import FINAL, State

COMMAND = Path(sys.executable).parent / "backprop"
ALWAYS = ("--min-free-ram", "0", "--max-cpu-load", "1000")
"""So that a small or busy machine measures starts, not the governor's patience."""
UNFINISHED: Final = frozenset(state.value for state in set(State) - FINAL - {State.HELD})
"""The states of a run that goes on by itself."""


class Workbench:
    """A home and a project, removed at exit: `with Workbench() as bench`. Changes BACKPROP_HOME and the directory of
    this process meanwhile, because some measurements call the queue from inside it."""

    def __enter__(self) -> "Workbench":
        self._folder = Path(tempfile.mkdtemp(prefix="backprop-bench-"))
        remove_at_exit(self._folder)
        self.project = self._folder / "project"
        self.project.mkdir()
        self.home = self._folder / "home"
        self._before, self._cwd = os.environ.copy(), Path.cwd()
        for name in [name for name in os.environ if name.startswith("BACKPROP_")]:
            del os.environ[name]
        os.environ["BACKPROP_HOME"] = str(self.home)
        os.chdir(self.project)
        return self

    def __exit__(self, *_: object) -> None:
        os.chdir(self._cwd)
        os.environ.clear()
        os.environ.update(self._before)

    def script(self, name: str, body: str) -> Path:
        """Write a script into the project folder."""
        path = self.project / name
        path.write_text(body)
        return path

    def backprop(self, *words: str) -> str:
        """Run the installed command and return its output. Raises CalledProcessError."""
        return subprocess.run([COMMAND, *words], check=True, capture_output=True, text=True).stdout

    def worker_output(self) -> str:
        """Return what the newest worker has said."""
        return (self._folder / "worker.out").read_text()

    @contextmanager
    def worker(self) -> Generator[int]:
        """Start a worker with default settings and yield its pid. Ends it, and with it its segments."""
        with (self._folder / "worker.out").open("w") as out:
            process = subprocess.Popen([COMMAND, "worker"], stdout=out, stderr=out, start_new_session=True)
        try:
            wait_until(lambda: "ready" in (self._folder / "worker.out").read_text())
            yield process.pid
        finally:
            process.terminate()
            try:
                process.wait(timeout=60)
            except subprocess.TimeoutExpired:
                process.terminate()
                process.wait(timeout=60)


def remove_at_exit(folder: Path) -> None:
    """Remove the folder at exit, not earlier. For a minute after many files were deleted, ext4 takes up to twenty times
    as long to make one, since it looks for inodes that were not in use lately. The next measurement would show that."""
    atexit.register(shutil.rmtree, folder, ignore_errors=True)


def wait_until(true_now: Callable[[], object], timeout_s: float = 60.0, every_s: float = 0.05) -> None:
    """Poll until `true_now()`. Raises TimeoutError."""
    end = time.monotonic() + timeout_s
    while not true_now():
        if time.monotonic() > end:
            raise TimeoutError(f"not true after {timeout_s} s")
        time.sleep(every_s)
