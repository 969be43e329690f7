"""One script of a framework, run once without interruption, and once as a chain of segments."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from tests.support.harness import Bench

SCRIPTS = Path(__file__).parent / "scripts"
BIN = Path(sys.executable).parent
# One thread: sums of floats depend on their order. No CUDA: what is tested here is the same on a CPU.
ALONE = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "KERAS_BACKEND": "torch"}
# About as long as it takes to start and save once; on a busy machine a segment overruns until it has. So the first two
# segments are cut after their first save, or their second, of five, whatever the machine: no timing decides.
CUT_TWICE = ("-m", "0.15", "--at-timebox", "end", "--overrun", "1000", "--max-segments", "2")
ENDS = ("completed", "failed", "timeboxed", "held", "stopped")
_FINISHED = re.compile(r"finished at step (\d+) with loss (\S+)")


@dataclass(frozen=True)
class Training:
    """A script as its user starts it. `at_once`: the words with which a step does not sleep."""

    script: str
    needs: tuple[str, ...]
    at_once: tuple[str, ...]
    arguments: tuple[str, ...] = ()
    launcher: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict[str, str])

    def command(self) -> tuple[str, ...]:
        return (*self.launcher, f"{self.script}.py", *self.arguments)


@dataclass(frozen=True)
class End:
    """The script's own last words: how far it came and its last loss, as printed, with all digits."""

    step: int
    loss: str


def skip_without(*modules: str) -> None:
    missing = [name for name in modules if find_spec(name) is None]
    if missing:
        pytest.skip(f"needs {', '.join(missing)}: pip install '.[frameworks]'", allow_module_level=True)


def end_of(text: str) -> End:
    found = _FINISHED.findall(text)
    assert found, f"the script did not finish: {text[-3000:]}"
    return End(int(found[-1][0]), found[-1][1])


def run_alone(training: Training, folder: Path) -> End:
    """Run the script without Backprop and without its sleep; how it ended."""
    _copy(training, folder)
    command = [*training.command(), *training.at_once]
    done = subprocess.run(
        [str(BIN / command[0]) if training.launcher else sys.executable, *command[bool(training.launcher) :]],
        cwd=folder,
        env={name: value for name, value in os.environ.items() if not name.startswith("BACKPROP_")}
        | {**ALONE, **training.environment},
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return end_of(done.stdout)


def prepare(bench: Bench, training: Training) -> None:
    """Put the script into the bench's project folder, and its environment around it."""
    _copy(training, bench.project)
    bench.environment |= {**ALONE, **training.environment}


def run_chained(bench: Bench, training: Training) -> tuple[str, dict[str, Any]]:
    """Queue the script as it is, cut it twice, then let it finish; the run's id and what `show --json` says then."""
    prepare(bench, training)
    program, *arguments = training.command()
    run = bench.queue(*CUT_TWICE, program, "--", *arguments)
    bench.worker("--drain")
    seen = bench.wait_for(run, *ENDS, timeout_s=300)
    assert seen["state"] == "timeboxed", told(bench, run)
    assert len(seen["segments"]) == 2, told(bench, run)
    assert bench.backprop("resume", run, "-m", "10").returncode == 0
    bench.worker("--drain")
    return run, bench.wait_for(run, *ENDS, timeout_s=300)


def reach(bench: Bench, run: str, step: int) -> None:
    """Wait until the run has told of a step."""
    deadline_s = time.monotonic() + 240
    while (seen := bench.show(run))["last_step"] is None or seen["last_step"] < step:
        assert seen["state"] in ("queued", "running"), told(bench, run)
        assert time.monotonic() < deadline_s, told(bench, run)
        time.sleep(0.2)


def told(bench: Bench, run: str) -> str:
    """What the workers said, and the script at its end."""
    last = len(bench.show(run)["segments"])
    workers = "".join(bench.output(number) for number in range(len(bench.workers)))
    return f"{workers}\n{bench.log(run, last)[-3000:]}"


def _copy(training: Training, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{training.script}.py").write_text((SCRIPTS / f"{training.script}.py").read_text())
