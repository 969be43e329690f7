"""What a storm does, one blow at a time. Each returns what it did, for the log; None if there was nothing to hit."""

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator

from tests.faults.storm import prey
from tests.faults.storm.frozen import Stage, segments_in
from tests.faults.storm.lateness import Lateness, watched
from tests.support import promises as books
from tests.support.harness import COMMAND, QUIET_LIMITS, SCRIPTS, Bench
from tests.support.moved_clock import WallClock

LEDGER = SCRIPTS / "ledger.py"
HOLD_LOCK = """
import sqlite3, sys, time
other = sqlite3.connect(sys.argv[1], timeout=5, isolation_level=None)
other.execute("BEGIN EXCLUSIVE")
time.sleep(float(sys.argv[2]))
"""
IN_WAIT_S = 15.0
"""How long a moment is waited for at which to strike, and how often one looks meanwhile."""
LOOK_EVERY_S, LOOKS = 0.004, 10
KEEPS = ("2", "--deaf", "--save-every", "1000")


class Weather:
    """Blows against one bench. `disk`: the home has a small disk of its own, which may be filled.

    `queued`: the ids of the runs that `backprop run` has said it queued. `faults`: what went wrong at once. `dealt`:
    how many blows of each kind have hit something.
    """

    def __init__(
        self, bench: Bench, chance: random.Random, steps: int, disk: bool, clock: WallClock | None
    ) -> None:
        self.bench = bench
        self.queued: list[str] = []
        self.faults: list[str] = []
        self.dealt: Counter[str] = Counter()
        self.lateness = Lateness(bench.home)
        self._chance = chance
        self._steps = steps
        self._later: list[tuple[float, Callable[[], None]]] = []
        self._waiting: dict[Stage, float] = {}
        self._commands: list[subprocess.Popen[str]] = []
        self._queuing: list[subprocess.Popen[str]] = []
        self.blows: dict[Callable[[], str | None], float] = {
            self.kill_worker: 2,
            self.hang_up_worker: 1,
            self.stop_worker: 0.5,
            self.freeze_worker: 2,
            self.kill_supervisor: 3,
            self.freeze_supervisor: 2,
            self.kill_reserve: 1,
            self.freeze_reserve: 1,
            self.pause_segment: 4,
            self.kill_leader: 2,
            self.freeze_leader: 1,
            self.kill_everything: 0.3,
            self.kill_command: 3,
            self.queue_one: 1,
            self.user_stops: 1,
            self.user_resumes: 2,
            self.user_suspends: 4,
            self.user_unsuspends: 1,
            self.kill_suspending: 3,
            self.kill_suspended: 2,
            self.kill_thawing: 3,
            self.lock_database: 1,
            self.delete_database: 0.5,
            self.damage_database: 0.7,
        }
        if disk:
            self.blows[self.fill_disk] = 1.5
        if clock is not None:
            self.blows[self.set_clock] = 1
        self._clock = clock

    def blow(self) -> str | None:
        kinds = list(self.blows)
        kind = self._chance.choices(kinds, weights=[self.blows[kind] for kind in kinds])[0]
        told = kind()
        self.dealt[kind.__name__] += told is not None
        return told

    def settle(self) -> None:
        """Do what is due: thaw, make room."""
        now_s = time.monotonic()
        due = [one for one in self._later if one[0] <= now_s]
        self._later = [one for one in self._later if one[0] > now_s]
        for _, action in due:
            action()
        self._commands = [one for one in self._commands if one.poll() is None]
        self._note_queued()
        self.lateness.look()

    def strike_in_time(self) -> Iterator[str]:
        """Look for a while for what is waited for; yield what was struck."""
        for _ in range(LOOKS):
            yield from self._pounce()
            time.sleep(LOOK_EVERY_S)

    def calm(self) -> None:
        """Everything that is due later, now; and no command of ours is left."""
        for _, action in self._later:
            action()
        self._later = []
        if self._clock is not None:
            self._clock.set(0)
        self.continue_all()
        for one in self._commands:
            one.wait(timeout=120)
        self._note_queued()

    def queue_runs(self, count: int) -> None:
        for _ in range(count):
            self.queued.append(self.bench.queue(*self._run_words()))

    def kill_worker(self) -> str | None:
        return self._hit("worker", signal.SIGKILL)

    def hang_up_worker(self) -> str | None:
        return self._hit("worker", signal.SIGHUP)

    def stop_worker(self) -> str | None:
        return self._hit("worker", signal.SIGTERM)

    def freeze_worker(self) -> str | None:
        return self._freeze("worker", 3.0)

    def kill_supervisor(self) -> str | None:
        return self._hit("supervisor", signal.SIGKILL)

    def freeze_supervisor(self) -> str | None:
        return self._freeze("supervisor", 4.0)

    def kill_reserve(self) -> str | None:
        """A supervisor without a segment, which may have had some before."""
        return self._hit("reserve", signal.SIGKILL)

    def freeze_reserve(self) -> str | None:
        return self._freeze("reserve", 3.0)

    def pause_segment(self) -> str | None:
        """As a worker does for a GPU that is too hot."""
        found = watched(self.bench.home)
        if not found:
            return None
        segment = self._chance.choice(sorted(found))
        if not prey.send(self.bench.home, found[segment]["supervisor"][0], signal.SIGUSR1):
            return None
        paused_s = self._chance.uniform(0.2, 4.0)
        self._do_later(paused_s, self.continue_all)
        return f"pause segment {segment[1]} of {segment[0]} for {paused_s:.1f} s"

    def continue_all(self) -> None:
        """Whoever supervises it by now: the one that was asked for the pause may be dead."""
        for noted in watched(self.bench.home).values():
            prey.send(self.bench.home, noted["supervisor"][0], signal.SIGUSR2)

    def kill_leader(self) -> str | None:
        return self._hit("leader", signal.SIGKILL)

    def freeze_leader(self) -> str | None:
        return self._freeze("leader", 2.0)

    def kill_everything(self) -> str | None:
        """As a machine that goes down, but for the boot id."""
        hit = [pid for role in prey.ROLES for pid in prey.of_role(self.bench.home, role)]
        self._chance.shuffle(hit)
        for pid in hit:
            self.lateness.kills(pid)
            prey.send(self.bench.home, pid, signal.SIGKILL)
        return f"kill everything: {hit}" if hit else None

    def kill_command(self) -> str | None:
        """A command of the user's dies in the middle of what it does."""
        words = self._chance.choice(
            (("run", *QUIET_LIMITS, *self._run_words()), ("list",), ("status",), *self._about_one())
        )
        command = self._start(*words)
        pause_s = self._chance.uniform(0.1, 0.6)
        self._do_later(pause_s, command.kill)
        return f"kill `backprop {words[0]}` after {pause_s:.2f} s"

    def queue_one(self) -> str | None:
        # Not waited for: whoever holds up the database may be frozen, and we are who thaws it.
        self._queuing.append(self._start("run", "-q", *QUIET_LIMITS, *self._run_words()))
        return "queue a run"

    def user_stops(self) -> str | None:
        run = self._any_run("running", "queued", "suspended")
        if run is None:
            return None
        self._start("stop", run)
        return f"stop {run}"

    def user_resumes(self) -> str | None:
        run = self._any_run("failed", "stopped", "timeboxed")
        if run is None:
            return None
        self._start("resume", run)
        return f"resume {run}"

    def user_suspends(self) -> str | None:
        run = self._any_run("running", "suspended")
        if run is None:
            return None
        self._start("suspend", run, "--for", f"{self._chance.randint(1, 6)}s")
        return f"suspend {run}"

    def user_unsuspends(self) -> str | None:
        if self._any_run("suspended") is None:
            return None
        self._start("unsuspend", "--all")
        return "unsuspend all"

    def kill_suspending(self) -> str | None:
        self.user_suspends()
        return self._lie_in_wait(Stage.SUSPENDING)

    def kill_suspended(self) -> str | None:
        return self._lie_in_wait(Stage.SUSPENDED)

    def kill_thawing(self) -> str | None:
        self.user_unsuspends()
        return self._lie_in_wait(Stage.THAWING)

    def _lie_in_wait(self, stage: Stage) -> str | None:
        """Strike once a segment is in that stage, see `settle`."""
        self._waiting[stage] = time.monotonic() + IN_WAIT_S
        return None

    def _pounce(self) -> Iterator[str]:
        """Kill the supervisor of a segment, or a worker, where one is in a stage that is waited for."""
        now_s = time.monotonic()
        for stage in [stage for stage, until_s in self._waiting.items() if until_s > now_s]:
            found = list(segments_in(self.bench.home, stage))
            if not found:
                continue
            del self._waiting[stage]
            (run, number), supervisor = self._chance.choice(found)
            if self._chance.random() < 0.5:
                told = self._hit("worker", signal.SIGKILL)
            else:
                self.lateness.kills(supervisor)
                killed = prey.send(self.bench.home, supervisor, signal.SIGKILL)
                told = f"SIGKILL to supervisor {supervisor}" if killed else None
            if told is not None:
                self.dealt[f"kill_{stage.value}"] += 1
                yield f"{told} while segment {number} of {run} is {stage.value}"

    def lock_database(self) -> str | None:
        held_s = self._chance.uniform(0.2, 3.0)
        words = [sys.executable, "-c", HOLD_LOCK, str(self.bench.home / "backprop.db"), str(held_s)]
        self._commands.append(subprocess.Popen(words, stderr=subprocess.DEVNULL, text=True))
        return f"lock the database for {held_s:.1f} s"

    def delete_database(self) -> str | None:
        (self.bench.home / "backprop.db").unlink(missing_ok=True)
        return "delete the database"

    def damage_database(self) -> str | None:
        """Damage that SQLite finds by itself sooner or later; what it cannot find, nobody can."""
        path = self.bench.home / "backprop.db"
        kind = self._chance.choice(("cut", "header", "zero"))
        with contextlib.suppress(OSError), path.open("r+b") as file:
            size = os.fstat(file.fileno()).st_size
            if kind == "cut":
                file.truncate(size // 2)
            else:
                file.write(self._chance.randbytes(200) if kind == "header" else bytes(size))
            return f"damage the database: {kind}"
        return None

    def fill_disk(self) -> str | None:
        """For some seconds there is no room; what only reads must go on meanwhile."""
        ballast = self.bench.home / "ballast"
        for chunk in (1 << 20, 4096):
            with contextlib.suppress(OSError), ballast.open("ab", buffering=0) as file:
                while True:
                    file.write(bytes(chunk))
        full_s = self._chance.uniform(0.5, 4.0)
        self._do_later(full_s, lambda: ballast.unlink(missing_ok=True))
        return f"fill the disk for {full_s:.1f} s"

    def set_clock(self) -> str | None:
        """Back, far ahead, and to the true time again."""
        offset_s = self._chance.choice((0, -30, -3600, -86400, 30, 3600, 86400))
        if self._clock is not None:
            self._clock.set(offset_s)
        return f"set the wall clock {offset_s} s off"

    def _run_words(self) -> tuple[str, ...]:
        """Most scripts obey at once; some save for most of their grace, some are deaf to INT and TERM. Some of those
        save at their end alone, and are suspended where others wait."""
        steps = str(self._chance.randint(self._steps // 2, self._steps))
        grace_s, *how = self._chance.choice(
            (
                ("5",),
                ("5",),
                ("5",),
                ("5", "--slow", "3.5"),
                ("2", "--slow", "1.4"),
                ("2", "--deaf"),
                KEEPS,
                KEEPS,
                KEEPS,
            )
        )
        at_end = "auto" if "1000" in how else self._chance.choice(("auto", "end"))
        return (str(LEDGER), "-m", "0.02", "--at-timebox", at_end, "--grace-seconds", grace_s, "--",
                "--steps", steps, "--pace", "0.02", "--save-every", "3", *how)  # fmt: skip

    def _about_one(self) -> tuple[tuple[str, ...], ...]:
        run = self._any_run("running", "queued", "failed", "stopped", "timeboxed")
        return (("stop", run), ("resume", run), ("show", run)) if run is not None else ()

    def _any_run(self, *states: str) -> str | None:
        try:
            rows = books.rows(self.bench.home, "runs", patience_s=0.1)
            found = [row["id"] for row in rows if row["state"] in states]
        except Exception:  # locked, deleted or damaged just now
            return None
        return self._chance.choice(found) if found else None

    def _start(self, *words: str) -> "subprocess.Popen[str]":
        command = subprocess.Popen(
            [str(COMMAND), *words],
            env=self.bench.environment,
            cwd=self.bench.project,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE if "-q" in words else subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self._commands.append(command)
        return command

    def _note_queued(self) -> None:
        """What `backprop run` has said it queued must never be lost."""
        for one in [one for one in self._queuing if one.poll() is not None]:
            said, _ = one.communicate()
            if one.returncode == 0:
                self.queued.append(said.strip())
            self._queuing.remove(one)

    def _of_role(self, role: str) -> list[int]:
        if role != "reserve":
            return prey.of_role(self.bench.home, role)
        busy = {noted["supervisor"][0] for noted in watched(self.bench.home).values()}
        return prey.reserves(self.bench.home, busy)

    def _hit(self, role: str, number: signal.Signals) -> str | None:
        found = self._of_role(role)
        if not found:
            return None
        pid = self._chance.choice(found)
        if role in ("supervisor", "reserve"):
            self.lateness.kills(pid)
        return f"{number.name} to {role} {pid}" if prey.send(self.bench.home, pid, number) else None

    def _freeze(self, role: str, longest_s: float) -> str | None:
        found = self._of_role(role)
        pid = self._chance.choice(found) if found else None
        if pid is None or not prey.send(self.bench.home, pid, signal.SIGSTOP):
            return None
        frozen_s = self._chance.uniform(0.2, longest_s)
        if role in ("supervisor", "reserve"):
            self.lateness.froze(pid, frozen_s)
        self._do_later(frozen_s, lambda: prey.send(self.bench.home, pid, signal.SIGCONT) or None)
        return f"freeze {role} {pid} for {frozen_s:.1f} s"

    def _do_later(self, pause_s: float, action: Callable[[], object]) -> None:
        def do() -> None:
            action()

        self._later.append((time.monotonic() + pause_s, do))
