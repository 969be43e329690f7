"""Tells how often the end of a simulated night lies before the predicted p90: `python -m benchmarks.eta`.

A night: runs of one sweep with unlike speeds, boxes, restarts, some failures. In some nights runs start in certain
hours only, in some they wait for each other. The prediction is made at a random moment from what a database would know
by then: steps, segments, and the running times of those that have completed.
"""

import argparse
import heapq
import math
import random
from dataclasses import dataclass, field

from backprop.scheduler.governor.forecast import forecast, median, spread_of
from backprop.scheduler.governor.playing import Job, Opens, always

NIGHTS = 400
GOAL = (0.85, 0.95)
SPECIAL = 0.4
"""The share of nights in which runs start in some hours only, and of those in which some wait for others."""
CHAINED = 0.3


@dataclass
class SimulatedRun:
    """One run of a night. `speed`: steps per second. `after`: numbers of those that have to complete first."""

    number: int
    steps: int
    speed: float
    restart_s: float
    fails_at: float = math.inf
    after: tuple[int, ...] = ()
    done: float = 0.0
    begun_s: float = -1.0
    gained: list[tuple[float, float]] = field(default_factory=list[tuple[float, float]])

    @property
    def has_completed(self) -> bool:
        return self.done >= self.steps - 1e-6


@dataclass
class Told:
    """What was told of a night. `kind`: what was special about it. `truth_s`, `middle_s`, `latest_s`: its end, the
    predicted one and the p90, in seconds from the moment of prediction."""

    kind: str
    truth_s: float
    middle_s: float
    latest_s: float

    @property
    def kept(self) -> bool:
        return self.truth_s <= self.latest_s


def main() -> None:
    """Print the share of nights that kept to their p90, and how far off the middle was."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.eta", description="Replay nights, by seed.")
    parser.add_argument("--nights", type=int, default=NIGHTS, help="how many; their seeds count from 1")
    nights: int = parser.parse_args().nights
    told = [replay(seed) for seed in range(1, nights + 1)]
    share = sum(one.kept for one in told) / nights
    print(f"seeds 1 to {nights}: the end lay before the p90 in {share:.1%} of {nights} nights")
    for kind in sorted({one.kind for one in told}):
        _print_kind(kind, [one for one in told if one.kind == kind])
    print("as wanted" if GOAL[0] <= share <= GOAL[1] else f"wanted: {GOAL[0]:.0%} to {GOAL[1]:.0%}")


def _print_kind(kind: str, told: list[Told]) -> None:
    share = sum(one.kept for one in told) / len(told)
    errors = sorted(abs(one.middle_s - one.truth_s) / max(one.truth_s, 1.0) for one in told)
    worst = errors[-max(len(told) // 10, 1)]
    print(
        f"  {kind:<22} {len(told):>3} nights, {share:.1%} kept;"
        f" the middle was off by {median(errors):.1%}, in the worst tenth by {worst:.1%}"
    )


def replay(seed: int) -> Told:
    """Play one night, and compare it with what was told of it."""
    dice, special = random.Random(seed), random.Random(-seed)
    slots, box_s = dice.randint(1, 3), dice.choice([300.0, 600.0, 1200.0])
    steps, base = dice.randint(500, 4000), dice.uniform(0.5, 2.0)
    unlike, restart_s = dice.choice([0.03, 0.15, 0.3]), dice.uniform(2, 30)
    runs = [
        SimulatedRun(
            number,
            steps,
            base * math.exp(dice.gauss(0, unlike)),
            restart_s,
            dice.uniform(0, 1) if dice.random() < 0.03 else math.inf,
        )
        for number in range(dice.randint(4, 40))
    ]
    total_s = sum(run.steps / run.speed for run in runs) / slots
    asked_s = total_s * dice.uniform(0.1, 0.8)
    opens, hours = _hours(special) if special.random() < SPECIAL else (always, "")
    if chained := special.random() < SPECIAL:
        _chain(runs, special)
    night = _Night(runs, slots, box_s, dice, opens)
    end_s = night.play(asked_s)
    now_s = night.asked_s
    told = forecast(night.told, slots, opens if opens is always else lambda at_s: opens(now_s + at_s) - now_s)
    kind = " and ".join(word for word in (hours, "dependencies" if chained else "") if word)
    return Told(kind or "plain", end_s - now_s, told.all_s or 0.0, told.latest_s or 0.0)


def _hours(dice: random.Random) -> tuple[Opens, str]:
    """Return hours that come again: open for a share of each period, and open when the night begins."""
    period_s, share = dice.uniform(2, 12) * 3600, dice.uniform(0.3, 0.8)

    def opens(at_s: float) -> float:
        gone_s = at_s % period_s
        return at_s if gone_s < share * period_s else at_s - gone_s + period_s

    return opens, "hours"


def _chain(runs: list[SimulatedRun], dice: random.Random) -> None:
    """Let some runs wait for one or two earlier ones."""
    for run in runs[1:]:
        if dice.random() < CHAINED:
            parents = dice.sample(range(run.number), min(run.number, dice.randint(1, 2)))
            run.after = tuple(parents)


class _Night:
    """One night as it was. `told`: what a database knew at `asked_s`."""

    def __init__(
        self, runs: list[SimulatedRun], slots: int, box_s: float, dice: random.Random, opens: Opens
    ) -> None:
        self._runs, self._slots, self._box_s, self._dice, self._opens = runs, slots, box_s, dice, opens
        self._waiting = [(run.number, run) for run in runs]
        # (end of the segment, number, its restart, its speed)
        self._running: list[tuple[float, int, float, float]] = []
        self._turn = len(runs)
        self.told: list[Job] = []
        self.asked_s = 0.0

    def play(self, asked_s: float) -> float:
        """Return when the last run has ended. The question comes at `asked_s`, or once any run has been measured."""
        now_s = last_s = 0.0
        while True:
            if self._opens(now_s) <= now_s:
                self._start(now_s)
            following_s = self._running[0][0] if self._running else math.inf
            if self._may_start() and len(self._running) < self._slots:
                following_s = min(following_s, max(self._opens(now_s), now_s))
            if not self.told and asked_s < following_s and any(run.gained for run in self._runs):
                self.asked_s = max(asked_s, now_s)
                self.told = self._known(self.asked_s)
            if math.isinf(following_s):
                return last_s
            now_s = following_s
            while self._running and self._running[0][0] <= now_s:
                self._end(now_s)
                last_s = now_s

    def _may_start(self) -> SimulatedRun | None:
        """Return the first that waits for nobody. Those whose parents have failed will never start."""
        for _, run in sorted(self._waiting, key=lambda one: one[0]):
            if all(self._runs[parent].has_completed for parent in run.after):
                return run
        return None

    def _start(self, now_s: float) -> None:
        while len(self._running) < self._slots and (run := self._may_start()) is not None:
            self._waiting = [one for one in self._waiting if one[1] is not run]
            dice = self._dice
            restart_s = run.restart_s * math.exp(dice.gauss(0, 0.2))
            speed = run.speed * math.exp(dice.gauss(0, 0.05))
            left_s = (min(run.fails_at, 1.0) * run.steps - run.done) / speed
            # A box ends at the next checkpoint, up to a little after its time.
            work_s = min(left_s, max(self._box_s * dice.uniform(1.0, 1.05) - restart_s, 1.0))
            run.begun_s = now_s
            heapq.heappush(self._running, (now_s + restart_s + work_s, run.number, restart_s, speed))

    def _end(self, now_s: float) -> None:
        _, number, restart_s, speed = heapq.heappop(self._running)
        run = self._runs[number]
        worked_s = now_s - run.begun_s - restart_s
        run.done += speed * worked_s
        run.gained.append((speed * worked_s, worked_s))
        if run.done < min(run.fails_at, 1.0) * run.steps - 1e-6:
            self._waiting.append((self._turn, run))
            self._turn += 1

    def _known(self, asked_s: float) -> list[Job]:
        """Return what a database would know at this moment."""
        live = {number: (restart_s, speed) for _, number, restart_s, speed in self._running}
        measured: dict[int, float] = {}
        steps_of: dict[int, float] = {}
        for run in self._runs:
            steps, seconds = (
                (sum(column) for column in zip(*run.gained, strict=True)) if run.gained else (0.0, 0.0)
            )
            done = run.done
            if run.number in live:
                restart_s, speed = live[run.number]
                gone_s = max(asked_s - run.begun_s - restart_s, 0.0)
                steps, seconds, done = steps + speed * gone_s, seconds + gone_s, done + speed * gone_s
            steps_of[run.number] = done
            if seconds > 30:
                measured[run.number] = steps / seconds
        whole = [run.steps / speed for run in self._runs if (speed := measured.get(run.number))]
        typical_s, spread = median(whole), spread_of(whole)
        waiting = [run for _, run in sorted(self._waiting, key=lambda one: one[0]) if self._can_start(run)]
        order = [run for run in self._runs if run.number in live] + waiting
        return [
            Job(
                id=str(run.number),
                work_s=(run.steps - steps_of[run.number]) / measured[run.number]
                if run.number in measured
                else typical_s,
                spread=0.06 if run.number in measured else spread,
                restart_s=run.restart_s,
                box_s=self._box_s,
                box_left_s=self._box_s - (asked_s - run.begun_s) if run.number in live else None,
                after=tuple(str(one) for one in run.after if not self._runs[one].has_completed),
            )
            for run in order
        ]

    def _can_start(self, run: SimulatedRun) -> bool:
        """Return whether nobody has failed that it waits for: else it has been stopped."""
        return all(
            not self._has_failed(self._runs[one]) and self._can_start(self._runs[one]) for one in run.after
        )

    def _has_failed(self, run: SimulatedRun) -> bool:
        return run.done >= run.fails_at * run.steps - 1e-6 and not run.has_completed


if __name__ == "__main__":
    main()
