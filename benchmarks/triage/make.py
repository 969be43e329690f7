"""Runs programs that fail, and keeps the ends of their logs: half of the programs for each half of the corpus.

Needs Linux, root (a small disk, another user, a control group) and an interpreter with the frameworks.
"""

import contextlib
import hashlib
import itertools
import os
import random
import signal
import subprocess
import tempfile
from collections import defaultdict
from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from backprop.worker.supervisor import oom_kills
from benchmarks.triage.programs_file import Program, programs
from benchmarks.triage.sample import Sample
from benchmarks.triage.wrappings import FAKE_LIBRARY, NOISE, ORDINARY, WANDB_FOOTER, WRAPPINGS, Wrapping

LOG_BYTES: Final = 64 * 1024
LONGEST_S: Final = 60.0
PER_KIND: Final = 26
SHELL_WRAPPINGS: Final = ("plain", "noise", "footer")
AS_NOBODY: Final = ("plain", "tqdm", "logged", "wandb", "shell", "noise", "reraised", "cleaned up")
IN_PROCESSES: Final = ("in a data worker", "pool", "lightning", "task group", "ranks")
LITTLE_MIB, ENOUGH_MIB = 96, 700
MEMORY: Final = Path("/sys/fs/cgroup/memory")


class Kitchen:
    """Where programs are run. `frameworks`: the interpreter with them, `others`: more interpreters."""

    def __init__(self, folder: Path, frameworks: Path, others: Sequence[Path]) -> None:
        self.folder, self.frameworks, self.others = folder, frameworks, others

    def cook(self, number: int, program: Program, wrapping: str) -> Sample | None:
        """Run a program in one way, and return what is left of it; None where it does not end, or well."""
        place = self.folder / f"job{number}"
        place.mkdir(mode=0o755)
        choose = random.Random(f"{program.name}{wrapping}")
        if program.is_shell:
            command, own = self._shell(place, program, wrapping, choose)
        else:
            way = next(one for one in WRAPPINGS if one.name == wrapping)
            command, own = self._python(place, program, way, choose)
        with self._surroundings(place, program, number) as (environment, group):
            counted_in = group if group is not None else oom_kills.own_group()
            before = oom_kills.counted(counted_in)
            status = _run(command, place, environment, group)
            if not status:
                print(f"{program.kind}, {program.name}, {wrapping}: did not fail", flush=True)
                return None
            after = oom_kills.counted(counted_in)
        log = (place / "log").read_bytes()[-LOG_BYTES:].decode(errors="replace")
        by_signal = signal.Signals(-status).name if status < 0 else None
        kills = [None if a is None or b is None else b - a for a, b in zip(before, after, strict=True)]
        return Sample(
            program.kind,
            program.name,
            wrapping,
            program.source,
            None if status < 0 else status,
            by_signal,
            (kills[0], kills[1]),
            str(place),
            own,
            log,
        )

    def _shell(
        self, place: Path, program: Program, wrapping: str, choose: random.Random
    ) -> tuple[list[str], tuple[str, int, str] | None]:
        said = "".join(f'echo "{line}"\n' for line in _talk(choose, wrapping == "noise"))
        (place / "run.sh").write_text(f"{said}{program.body}\n")
        command = ["bash", "run.sh"]
        if wrapping == "footer":
            command = [
                "bash",
                "-c",
                f"bash run.sh; code=$?; echo 'exit: '$code; echo '{WANDB_FOOTER}'; exit $code",
            ]
        frame = program.option("frame")
        file, line, function = frame.split(":") if frame else ("", "0", "")
        return command, (file, int(line), function) if frame else None

    def _python(
        self, place: Path, program: Program, way: Wrapping, choose: random.Random
    ) -> tuple[list[str], tuple[str, int, str] | None]:
        layout = choose.choice(("here", "beside", "method"))
        function = choose.choice(("step", "load", "run_epoch", "build"))
        head = program.setup.splitlines()
        if "fake" in program.flags:
            packages = place / ".venv" / "lib" / "python3.11" / "site-packages"
            packages.mkdir(parents=True)
            (packages / "fakelib.py").write_text(FAKE_LIBRARY)
            head.append("import fakelib")
        indent = "        " if layout == "method" else "    "
        body = [indent + line if line else "" for line in program.body.splitlines()]
        if layout == "method":
            source = [*head, "", "class Trainer:", f"    def {function}(self):", *body]
            call = f"Trainer().{function}()"
        else:
            source = [*head, "", f"def {function}():", *body]
            call = f"{function}()"
        file = "train.py"
        marked = [at for at, line in enumerate(source, 1) if line.rstrip().endswith("#!")]
        at = marked[-1] if marked else len(source)
        where = function
        if marked and source[marked[-1] - 1].lstrip() == source[marked[-1] - 1]:
            where = "<module>"
        if (inner := _inner_function(source, at, function)) is not None:
            where = inner
        source = [line.replace("  #!", "") for line in source]
        talk = [f"print({line!r}, flush=True)" for line in _talk(choose, way.name == "noise")]
        main = [*talk, *way.main.replace("CALL", call).splitlines()]
        if layout == "beside":
            file = "steps.py"
            (place / file).write_text("\n".join(source) + "\n")
            main = [f"from steps import {function}", *main]
            (place / "train.py").write_text("\n".join(main) + "\n")
        else:
            (place / "train.py").write_text("\n".join([*source, "", *main]) + "\n")
        (place / "footer.txt").write_text(WANDB_FOOTER)
        python = self._interpreter(program, way, choose)
        command = [
            word.replace("PYTHON", str(python)).replace("BIN", str(python.parent)) for word in way.command
        ]
        return command, None if "noframe" in program.flags else (file, at, where)

    def _interpreter(self, program: Program, way: Wrapping, choose: random.Random) -> Path:
        if "setuid" in program.body:
            needs_fw = way.needs_fw or program.flags & {"fw", "torch"}
            return self.frameworks if needs_fw else Path("/usr/bin/python3")
        if "fw2" in program.flags:
            return self.frameworks.parent.parent.with_name("fw2") / "bin" / "python"
        if way.needs_fw or program.flags & {"fw", "torch"}:
            return self.frameworks
        return choose.choice((self.frameworks, *self.others))

    @contextlib.contextmanager
    def _surroundings(
        self, place: Path, program: Program, number: int
    ) -> Generator[tuple[dict[str, str], Path | None]]:
        """Yield the environment, and the control group that it is to be run in."""
        environment = {
            "PATH": f"{self.frameworks.parent}:/usr/bin:/bin"
            if "fw" in program.flags or not program.is_shell
            else "/usr/bin:/bin",
            "HOME": str(place),
            "LANG": "C.UTF-8",
            "HF_ENDPOINT": "http://127.0.0.1:9",
            "OMP_NUM_THREADS": "1",
            "GLOO_SOCKET_IFNAME": "lo",
            "COLUMNS": "100",
            "PYTHONPATH": str(place / ".venv" / "lib" / "python3.11" / "site-packages"),
        }
        group = None
        if "full" in program.flags:
            disk = place / "full"
            disk.mkdir()
            subprocess.run(["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", str(disk)], check=True)
            environment["FULL"] = str(disk)
        if "cgroup" in program.flags:
            group = MEMORY / f"backprop-triage-{os.getpid()}-{number}"
            group.mkdir()
            limit = ENOUGH_MIB if "big" in program.flags else LITTLE_MIB
            (group / "memory.limit_in_bytes").write_text(str(limit << 20))
        try:
            yield environment, group
        finally:
            if "full" in program.flags:
                subprocess.run(["umount", "-l", str(place / "full")], check=True)
            if group is not None:
                group.rmdir()


def _inner_function(source: Sequence[str], at: int, outer: str) -> str | None:
    """Return the function inside of the program's that the failing line is in; None where there is none."""
    depth = len(source[at - 1]) - len(source[at - 1].lstrip())
    for line in reversed(source[: at - 1]):
        stripped = line.lstrip()
        if stripped and len(line) - len(stripped) < depth:
            depth = len(line) - len(stripped)
            words = stripped.removeprefix("async ").split("(")[0].split()
            if words[:1] == ["def"]:
                return words[1] if words[1] != outer else None
    return None


def _talk(choose: random.Random, noisy: bool) -> list[str]:
    lines: list[str] = [*choose.sample(ORDINARY, choose.randint(1, 4))]
    decoys = 4 if noisy else choose.choice((0, 0, 1))
    lines += choose.sample(NOISE, decoys)
    choose.shuffle(lines)
    return lines


def _run(command: Sequence[str], place: Path, environment: dict[str, str], group: Path | None) -> int | None:
    def enter() -> None:
        if group is not None:
            (group / "cgroup.procs").write_text(str(os.getpid()))

    with (place / "log").open("wb") as log:
        process = subprocess.Popen(
            command, cwd=place, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
            start_new_session=True, preexec_fn=enter,
        )  # fmt: skip
        try:
            return process.wait(LONGEST_S)
        except subprocess.TimeoutExpired:
            print(f"{command} in {place} did not end", flush=True)
            return None
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def is_held_out(program: Program, others: Sequence[Program]) -> bool:
    """Return whether a program is in the half that is opened last: every other one of a kind, in the order of their
    hashes. `others`: all of its kind."""
    ordered = sorted(others, key=lambda one: hashlib.sha256(one.name.encode()).hexdigest())
    return ordered.index(program) % 2 == 1


def ways_of(program: Program) -> list[str]:
    """Return the wrappings that a program can be run in."""
    if program.is_shell:
        return list(SHELL_WRAPPINGS)
    only = program.option("only")
    if only is not None:
        return only.split(",")
    names = [way.name for way in WRAPPINGS if way.plain or "noframe" not in program.flags]
    if "setuid" in program.body:
        return [name for name in names if name in AS_NOBODY]
    if program.kind == "data worker died" or "asyncio.run" in program.body:
        return [name for name in names if name not in IN_PROCESSES]
    return names


def make(
    folder: Path, frameworks: Path, others: Sequence[Path], seed: int, jobs: int
) -> tuple[list[Sample], list[Sample]]:
    """Run everything; return the half to write rules by, and the half that is held out."""
    by_kind: defaultdict[str, list[Program]] = defaultdict(list)
    for program in programs():
        by_kind[program.kind].append(program)
    choose = random.Random(seed)
    rotation = itertools.count()
    plan: list[tuple[Program, str]] = []
    for mine in by_kind.values():
        each = -(-PER_KIND // len(mine))
        for program in mine:
            ways = ways_of(program)
            start = next(rotation) * 7
            picked = [ways[(start + 5 * turn) % len(ways)] for turn in range(each)]
            plan += [(program, way) for way in dict.fromkeys(picked)]
    choose.shuffle(plan)
    with tempfile.TemporaryDirectory(dir=folder, prefix="triage-", ignore_cleanup_errors=True) as work:
        Path(work).chmod(0o755)
        kitchen = Kitchen(Path(work), frameworks, others)
        with ThreadPoolExecutor(jobs) as pool:
            numbers = range(len(plan))
            samples = list(pool.map(kitchen.cook, numbers, *zip(*plan, strict=True)))
    halves: tuple[list[Sample], list[Sample]] = ([], [])
    for (program, _), sample in zip(plan, samples, strict=True):
        if sample is not None:
            halves[is_held_out(program, by_kind[program.kind])].append(sample)
    return halves
