"""Measures what sharing one slot costs ten unlike scripts: `python -m benchmarks.continuity`, forty minutes.

The ten scripts of `ten_scripts` run one after the other without interruption: the floor. Then they share one slot in
boxes: with `--at-timebox auto`, with the same where all ten may be suspended at once, and with `end`. Lost is what the
whole took beyond the floor: restarts (from the start of a segment to its next step), steps done again, the ways into
suspensions and out of them, and the rest. Per turn: for each restart and each suspension.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from benchmarks.machine import machine
from benchmarks.ten_scripts import SCRIPTS, STEP_S, text
from benchmarks.workbench import ALWAYS, UNFINISHED, Workbench, wait_until

BOXES: Final = 5
"""Each script has work for so many boxes."""
STEPS: Final = ("ordered_at", "left_at", "claimed_at", "on_at")
"""Of a suspension, in `show --json`."""
PATIENCE: Final = 4.0
"""A way that takes longer than so many times the floor is given up."""


@dataclass(frozen=True)
class Book:
    """What one script has written down. `first_step_s`: of each start, how long it took to its first step."""

    starts: int
    first_step_s: tuple[float, ...]
    steps: tuple[int, ...]

    def is_whole(self, steps: int) -> bool:
        """Return whether each step up to the last was done."""
        return set(self.steps) == set(range(1, steps + 1))


@dataclass(frozen=True)
class Outcome:
    """What one way took. `completed`: how many scripts came to their end. `redone_s`: steps that were done again.
    `moving_s`: of each suspension, how long it took to leave and to come back."""

    way: str
    wall_s: float
    completed: int
    books: tuple[Book, ...]
    moving_s: tuple[float, ...] = ()

    @property
    def restarts(self) -> int:
        return sum(book.starts for book in self.books) - len(self.books)

    @property
    def restart_s(self) -> float:
        return sum(sum(book.first_step_s[1:]) for book in self.books)

    @property
    def redone_s(self) -> float:
        return STEP_S * sum(len(book.steps) - len(set(book.steps)) for book in self.books)

    def row(self, floor_s: float) -> str:
        """Return a line of the table. `floor_s`: what the uninterrupted sequence took."""
        cells = [
            self.way, f"{self.completed} of {len(self.books)}", f"{self.wall_s:.0f}", str(self.restarts),
            f"{self.restart_s:.1f}", f"{self.redone_s:.1f}", str(len(self.moving_s)), f"{sum(self.moving_s):.1f}",
        ]  # fmt: skip
        if self.completed == len(self.books):
            lost_s = self.wall_s - floor_s
            cells += [
                f"{lost_s:.1f}",
                f"{100 * lost_s / floor_s:.1f} %",
                f"{lost_s / max(self.restarts + len(self.moving_s), 1):.2f}",
            ]
        return f"| {' | '.join(cells)} |"


HEAD: Final = (
    "| ten scripts, one slot | completed | s in all | restarts | restarting, s | redone, s | suspended "
    "| to suspend and thaw, s | lost, s | of the floor | lost per turn, s |\n"
    "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"
)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.continuity", description=__doc__)
    parser.add_argument("--seconds", type=float, default=600.0, help="work of all ten together; default: 600")
    parser.add_argument("--quick", action="store_true", help="30 seconds of work: to see that it works")
    options = parser.parse_args()
    seconds: float = 30.0 if options.quick else options.seconds
    print(machine(), end="\n\n", flush=True)
    steps = max(round(seconds / len(SCRIPTS) / STEP_S), BOXES)
    box_min = steps * STEP_S / BOXES / 60
    floor = measure("one after the other", lambda bench: uninterrupted(bench, steps), steps)
    print(HEAD, floor.row(floor.wall_s), sep="\n", flush=True)
    for rule, most, said in (("auto", None, ""), ("auto", 10, ", all may be suspended"), ("end", None, "")):
        words = ("-m", f"{box_min:.6f}", "--at-timebox", rule)
        shared = measure(
            f"`--at-timebox {rule}`, boxes of {60 * box_min:.1f} s{said}",
            lambda bench, words=words, most=most: in_turns(
                bench, words, steps, PATIENCE * floor.wall_s, most
            ),
            steps,
        )
        print(shared.row(floor.wall_s), flush=True)
        for (_, which), book in zip(names(), shared.books, strict=True):
            if not book.is_whole(steps):
                print(f"- not whole: the one that {which}, at step {max(book.steps, default=0)} of {steps}")
    return 0


def measure(way: str, play: Callable[[Workbench], None], steps: int) -> Outcome:
    """Play one way in a home of its own. Return what it took."""
    with Workbench() as bench:
        for name, which in names():
            (bench.project / f"out-{name}").mkdir()
            bench.script(f"{name}.py", text(which, name))
        begun_s = time.monotonic()
        play(bench)
        wall_s = time.monotonic() - begun_s
        books = tuple(read(bench.project / f"{name}.py.book") for name, _ in names())
        return Outcome(
            way, wall_s, sum(book.is_whole(steps) for book in books), books, tuple(moving_s(bench))
        )


def names() -> list[tuple[str, str]]:
    """Return each script's file name, without its ending, and what it does."""
    return [(f"train{number}", which) for number, which in enumerate(SCRIPTS)]


def uninterrupted(bench: Workbench, steps: int) -> None:
    """Run all of them one after the other."""
    for name, _ in names():
        command = [sys.executable, f"{name}.py", "--steps", str(steps)]
        subprocess.run(command, cwd=bench.project, stdout=subprocess.DEVNULL, check=True)


def in_turns(
    bench: Workbench, words: Sequence[str], steps: int, patience_s: float, most_suspended: int | None
) -> None:
    """Queue all of them, and wait for a worker with one slot to end them. `most_suspended`: at once, None for the
    default."""
    bench.home.mkdir(mode=0o700)
    rules = {"maxParallel": 1} | ({"maxSuspended": most_suspended} if most_suspended is not None else {})
    (bench.home / "config.json").write_text(json.dumps(rules))
    with bench.worker():
        for name, _ in names():
            script = (f"{name}.py", "--", "--steps", str(steps))
            bench.backprop("run", "-q", *ALWAYS, "--python", sys.executable, *words, *script)
        wait_until(lambda: not UNFINISHED & set(states(bench)), patience_s, every_s=1.0)


def moving_s(bench: Workbench) -> Iterator[float]:
    """Yield how long each suspension took to leave its slot and, once it had one again, to go on."""
    if not bench.home.exists():
        return
    for run in json.loads(bench.backprop("list", "-n", "0", "--json")):
        for one in json.loads(bench.backprop("show", run["id"], "--json"))["suspensions"]:
            times = [datetime.fromisoformat(one[name]).timestamp() for name in STEPS if one[name] is not None]
            yield sum(times[at + 1] - times[at] for at in range(0, len(times) - 1, 2))


def states(bench: Workbench) -> list[str]:
    return [run["state"] for run in json.loads(bench.backprop("list", "-n", "0", "--json"))]


def read(path: Path) -> Book:
    """Read what a script has written down."""
    began_s: list[float] = []
    first_step_s: dict[int, float] = {}
    steps: list[int] = []
    for what, *numbers in (line.split() for line in path.read_text().splitlines()):
        now_s = float(numbers[-1])
        if what == "begun":
            began_s.append(now_s)
        else:
            steps.append(int(numbers[0]))
            first_step_s.setdefault(len(began_s), now_s - began_s[-1] - STEP_S)
    return Book(len(began_s), tuple(first_step_s.values()), tuple(steps))


if __name__ == "__main__":
    sys.exit(main())
