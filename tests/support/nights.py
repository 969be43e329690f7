"""Writes a night into a database: runs that took turns on a GPU, what they reported, and samples of the machine."""

import json
import math
import random
from dataclasses import dataclass
from typing import Any

from backprop.scheduler.spec import NewRun, QueuePosition, RunSpec
from backprop.scheduler.store.connection import Database
from backprop.scheduler.store.rows import execute, insert_row
from backprop.scheduler.store.writes import enqueue

GPU = "GPU-5b2f1c7e-0c3a-4f1e-9f0e-4090aaaa0001"
HOT = "GPU 0: 87 °C; starts below 80 °C (--gpu-max-temp)"
HOSTILE = (
    '<script>alert("x")</script>',
    "--><img src=http://example.org/x onerror=alert(1)>",
    "中文運行名稱のテスト한국어",
    "🔥🚀 emoji 👩‍💻",
    "&amp;\u202e'\"]]>",
    "very-long-" * 30,
)
"""Names that must do no harm to a page or a terminal."""


@dataclass(frozen=True)
class NightPlan:
    """`until_s`: when it ends, Unix seconds. `lanes`: runs at once. `hot`: it stands still for half an hour."""

    runs: int = 30
    until_s: float = 1_795_680_240.0
    hours: float = 10.0
    lanes: int = 2
    gpu: bool = True
    hot: bool = True
    group: str | None = "lr-sweep"
    names: tuple[str, ...] = ()
    metrics: bool = True

    @property
    def since_s(self) -> float:
        return self.until_s - self.hours * 3600


def write_night(database: Database, plan: NightPlan = NightPlan()) -> list[str]:
    """Write the night; return the ids of its runs. The same plan gives the same night."""
    return database.write(lambda: _Writer(plan).write(database))


class _Writer:
    def __init__(self, plan: NightPlan) -> None:
        self.plan = plan
        self.random = random.Random(4)
        self.hot = (plan.since_s + 0.34 * plan.hours * 3600, plan.since_s + 0.39 * plan.hours * 3600)
        self.busy: list[tuple[float, float]] = []
        self.runs = [self._run(number) for number in range(plan.runs)]

    def write(self, database: Database) -> list[str]:
        place = QueuePosition(group=self.plan.group)
        new = [NewRun(id=run["id"], name=run["name"], spec=run["spec"], place=place) for run in self.runs]
        enqueue.enqueue_all(database, new, self.plan.since_s - 300)
        if new:
            self._take_turns()
        for run in self.runs:
            self._settle(run)
        self._sample()
        return [run["id"] for run in self.runs]

    def _run(self, number: int) -> dict[str, Any]:
        rate, seed = (1e-3, 3e-4, 1e-4)[number % 3], number // 3
        names = self.plan.names
        name = names[number] if number < len(names) else f"lr{rate:g}-s{seed}"
        argv = ("python", "train.py", "--lr", f"{rate:g}", "--seed", str(seed), "--depth=8")
        spec = RunSpec(argv=argv, program="/usr/bin/python", cwd="/project", script="/project/train.py")
        return {
            "id": f"8505-{number + 1}", "name": name, "spec": spec, "rate": rate, "number": number,
            "need": self.random.choice([3, 4, 5, 6]), "done": 0, "segment": 0, "state": "queued",
            "reason": "waits: running runs 2, at most 2", "step": None, "loss": None, "code": None, "fault": None,
        }  # fmt: skip

    def _take_turns(self) -> None:
        plan = self.plan
        lanes = [plan.since_s + 20.0] * plan.lanes
        length = min(600.0, plan.hours * 3600 * plan.lanes / (plan.runs * 5))
        queue = list(self.runs)
        while queue:
            lane = lanes.index(min(lanes))
            now = lanes[lane]
            if now + 60 >= plan.until_s:
                break
            if plan.hot and self.hot[0] <= now < self.hot[1]:
                lanes[lane] = self.hot[1]
                continue
            run = queue.pop(0)
            if not self._turn(run, now, min(length, plan.until_s - now - 30)):
                queue.append(run)
            lanes[lane] = run["end"] + 1.3

    def _turn(self, run: dict[str, Any], now: float, length: float) -> bool:
        """Write one segment; return whether the run has ended."""
        run["segment"] += 1
        run.setdefault("start", now)
        outcome, reason, code, state = "timeboxed", "timebox reached; resumes from its checkpoint", 75, None
        if run["number"] == 7 and run["segment"] == 2:
            length, outcome, code = 34.0, "failed", 1
            reason, state = "exited 1: FileNotFoundError: data/cifar100/train.pkl", "failed"
        elif run["number"] == 9 and run["segment"] == 3:
            outcome, reason, code, state = "NaN loss", "its loss is NaN at step 11840", None, "failed"
            run["fault"] = "NaN loss"
        elif run["number"] == 4 and run["segment"] == 2:
            outcome, code, reason = "lost", None, "killed from outside, or the machine went down"
        elif run["done"] + 1 >= run["need"]:
            outcome, reason, code, state = "completed", "exited 0", 0, "completed"
        run["done"] += outcome == "timeboxed"
        run |= {"end": now + length, "code": code, "reason": reason, "state": state or run["state"]}
        insert_row(
            "segments",
            {
                "run_id": run["id"], "number": run["segment"], "worker": "w1", "started_at_s": now,
                "ended_at_s": now + length, "outcome": outcome, "reason": reason, "exit_code": code,
                "running_s": length - (40.0 if outcome == "timeboxed" and run["number"] == 2 else 0.0),
                "cut_cost_s": 4.0 if outcome == "timeboxed" else None, "first_step_s": 6.0,
                "gpu_uuids": json.dumps([GPU] if self.plan.gpu else []), "promised_mib": 7000,
                "need_source": "declared", "exclusive": 0, "peak_mib": 6400, "log_offset": 0,
                "events_offset": 0, "bad_events": 0, "boxes": 1,
                "checkpoint_used": "/project/last.pt" if run["segment"] > 1 else None,
            },
        )  # fmt: skip
        self.busy.append((now, now + length))
        self._report(run, now, length)
        return state is not None

    def _report(self, run: dict[str, Any], now: float, length: float) -> None:
        for second in range(0, int(length), 30):
            step = (run["segment"] - 1) * 4000 + second * 6
            falls = math.exp(-step * (30 + 60 * math.log10(run["rate"] / 1e-5)) / 330_000)
            loss = (
                2.3 * falls + 0.25 + 0.08 * abs(math.log10(run["rate"] / 3e-4)) + 0.03 * self.random.random()
            )
            run |= {"step": step, "loss": loss}
            values = {"loss": loss, "accuracy": max(0.0, 1 - loss / 2.5)} if self.plan.metrics else {}
            for name, value in values.items():
                row = {"run_id": run["id"], "segment": run["segment"], "at_s": now + second, "step": step}
                insert_row("metrics", row | {"name": name, "value": value})

    def _settle(self, run: dict[str, Any]) -> None:
        ended = run["end"] if run["state"] != "queued" else None
        values = (
            run["state"],
            run["reason"],
            run.get("start"),
            ended,
            run["segment"],
            run["step"],
            run["loss"],
        )
        execute(
            "UPDATE runs SET state = ?, reason = ?, started_at_s = ?, ended_at_s = ?, segment = ?, last_step = ?,"
            " last_loss = ?, exit_code = ?, fault = ? WHERE id = ?",
            (*values, run["code"], run["fault"], run["id"]),
        )

    def _sample(self) -> None:
        at_s = self.plan.since_s
        while at_s < self.plan.until_s:
            count = sum(begin <= at_s < end for begin, end in self.busy)
            hot = self.plan.hot and self.hot[0] - 600 < at_s < self.hot[1]
            refusals = [["running runs", "running runs 2, at most 2", None]]
            if hot and not count:
                refusals = [["temperature", HOT, 0]]
            elif not count:
                refusals = [["nothing queued", "nothing was queued", None]]
            told = [{"rule": rule, "text": text, "gpu_index": index} for rule, text, index in refusals]
            insert_row(
                "samples", {"at_s": at_s, "free_mib": 30_000, "load_1m": 1.5, "refusals": json.dumps(told)}
            )
            if self.plan.gpu:
                insert_row("samples", self._gpu(at_s, count, hot))
            at_s += 30

    def _gpu(self, at_s: float, count: int, hot: bool) -> dict[str, object]:
        temp_c = int(52 + 11 * count + (13 if hot else 0) + 2 * self.random.random())
        return {
            "at_s": at_s, "gpu_uuid": GPU, "gpu_index": 0, "gpu_name": "NVIDIA GeForce RTX 4090",
            "free_mib": 23_500 - 6400 * count, "total_mib": 24_080, "temp_c": temp_c, "limit_c": 85,
            "utilisation_pct": min(100, 49 * count + self.random.randrange(3)) if count else 0,
            "power_w": 60.0 + 150 * count, "run_ids": "[]",
        }  # fmt: skip
