"""Tells how often the end of a simulated night lies before the predicted p90: `python -m benchmarks.eta`.

A night: runs of one sweep with unlike speeds, boxes, restarts, some failures. The prediction is made at a random moment
from what a database would know by then: steps, segments, and the running times of those that have completed.
"""

import argparse
import heapq
import math
import random
from collections import deque
from dataclasses import dataclass, field

from backprop.scheduler.governor.forecast import Job, forecast, median, spread_of

NIGHTS = 400
GOAL = (0.85, 0.95)


@dataclass
class SimulatedRun:
    """One run of a night. `speed`: steps per second."""

    number: int
    steps: int
    speed: float
    restart_s: float
    fails_at: float = math.inf
    done: float = 0.0
    begun_s: float = -1.0
    gained: list[tuple[float, float]] = field(default_factory=list[tuple[float, float]])


def main() -> None:
    """Print the share of nights that kept to their p90, and how far off the middle was."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.eta", description="Replay nights, by seed.")
    parser.add_argument("--nights", type=int, default=NIGHTS, help="how many; their seeds count from 1")
    nights: int = parser.parse_args().nights
    kept, errors, seeds = 0, list[float](), range(1, nights + 1)
    for seed in seeds:
        truth_s, middle_s, latest_s = replay(seed)
        kept += truth_s <= latest_s
        errors.append(abs(middle_s - truth_s) / max(truth_s, 1.0))
    share = kept / nights
    print(f"seeds {seeds[0]} to {seeds[-1]}: the end lay before the p90 in {share:.1%} of {nights} nights")
    worst = sorted(errors)[-max(nights // 10, 1)]
    print(
        f"the middle was off by {median(errors):.1%} in the median night, by {worst:.1%} in the worst tenth"
    )
    print("as wanted" if GOAL[0] <= share <= GOAL[1] else f"wanted: {GOAL[0]:.0%} to {GOAL[1]:.0%}")


def replay(seed: int) -> tuple[float, float, float]:
    """Play one night; return the true end, the predicted middle and p90, in seconds from the moment of prediction."""
    dice = random.Random(seed)
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
    jobs: list[Job] = []
    end_s = _night(runs, slots, box_s, dice, asked_s, jobs)
    told = forecast(jobs, slots)
    return end_s - asked_s, told.all_s or 0.0, told.latest_s or 0.0


def _night(
    runs: list[SimulatedRun], slots: int, box_s: float, dice: random.Random, asked_s: float, jobs: list[Job]
) -> float:
    waiting, running, now_s = deque(runs), list[tuple[float, int, float, float]](), 0.0
    while waiting or running:
        while waiting and len(running) < slots:
            run = waiting.popleft()
            restart_s = run.restart_s * math.exp(dice.gauss(0, 0.2))
            speed = run.speed * math.exp(dice.gauss(0, 0.05))
            left = (min(run.fails_at, 1.0) * run.steps - run.done) / speed
            # A box ends at the next checkpoint, up to a little after its time.
            work_s = min(left, max(box_s * dice.uniform(1.0, 1.05) - restart_s, 1.0))
            run.begun_s = now_s
            heapq.heappush(running, (now_s + restart_s + work_s, run.number, restart_s, speed))
        if now_s <= asked_s < running[0][0] and not jobs:
            jobs += _known(runs, waiting, running, box_s, asked_s)
        now_s, number, restart_s, speed = heapq.heappop(running)
        run = runs[number]
        gone_s = now_s - run.begun_s
        run.done += speed * (gone_s - restart_s)
        run.gained.append((speed * (gone_s - restart_s), gone_s - restart_s))
        if run.done < min(run.fails_at, 1.0) * run.steps - 1e-6:
            waiting.append(run)
    return now_s


def _known(
    runs: list[SimulatedRun],
    waiting: "deque[SimulatedRun]",
    running: list[tuple[float, int, float, float]],
    box_s: float,
    asked_s: float,
) -> list[Job]:
    """Return what a database would know at this moment."""
    live = {number: (restart_s, speed) for _, number, restart_s, speed in running}
    measured: dict[int, float] = {}
    steps_of: dict[int, float] = {}
    for run in runs:
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
    whole = [run.steps / speed for run in runs if (speed := measured.get(run.number))]
    typical_s, spread = median(whole), spread_of(whole)
    order = [run for run in runs if run.number in live] + list(waiting)
    return [
        Job(
            id=str(run.number),
            work_s=(run.steps - steps_of[run.number]) / measured[run.number]
            if run.number in measured
            else typical_s,
            spread=0.06 if run.number in measured else spread,
            restart_s=run.restart_s,
            box_s=box_s,
            box_left_s=box_s - (asked_s - run.begun_s) if run.number in live else None,
        )
        for run in order
    ]


if __name__ == "__main__":
    main()
