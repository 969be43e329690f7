"""An agent's night: each experiment runs once, whoever is killed, and each planted fault is named in its answers."""

import os
import signal
import subprocess
import sys

import pytest

from examples.agent_night import agent
from tests.support import promises
from tests.support.harness import COMMAND, QUIET_LIMITS, ROOT, Bench, wait_until

NAMED = {
    "syntax": ("failed", "syntax error"),
    "module": ("failed", "import error"),
    "GPU memory": ("failed", "out of GPU memory"),
    "division": ("failed", "division by zero"),
    "NaN": (None, "NaN loss"),
    "hang": ("timeboxed", "timebox"),
    "no result": ("completed", "it printed no val_bpb"),
    "crash": ("failed", "runtime error"),
    "killed": ("completed", ""),
}
"""By planted fault: the state, where it is one alone, and what the agent was told."""
OPTIONS = (*QUIET_LIMITS, "-m", "0.15", "--max-total-minutes", "0.3", "--grace-seconds", "2")


PATIENCE_S = 15
"""For each experiment, on a busy machine."""


def start(bench: Bench, *words: str) -> "subprocess.Popen[str]":
    """Start the agent in the bench's project folder; what it prints goes to `agent.out`."""
    with (bench.project / "agent.out").open("a") as out:
        return subprocess.Popen(
            [sys.executable, str(ROOT / "examples/agent_night/agent.py"), *words, "--", *OPTIONS],
            env=os.environ
            | bench.environment
            | {"BUDGET_S": "0.6", "PATH": f"{COMMAND.parent}:{os.environ['PATH']}"},
            cwd=bench.project,
            stdout=out,
            stderr=out,
            text=True,
        )


def table(bench: Bench) -> list[dict[str, str]]:
    lines = (bench.project / "agent-night/results.tsv").read_text().splitlines()
    return [dict(zip(lines[0].split("\t"), line.split("\t"), strict=True)) for line in lines[1:]]


def done(bench: Bench) -> int:
    path = bench.project / "agent-night/results.tsv"
    return len(table(bench)) if path.exists() else 0


def said(bench: Bench) -> str:
    return (bench.project / "agent.out").read_text()


@pytest.mark.timeout(3600)
@pytest.mark.parametrize(
    ("experiments", "fault_every"), [(9, 1), pytest.param(100, 5, marks=pytest.mark.long)]
)
def test_every_experiment_runs_once_and_each_fault_is_named(
    bench: Bench, experiments: int, fault_every: int
) -> None:
    words = ("--experiments", str(experiments), "--fault-every", str(fault_every))
    patience_s = max(120.0, PATIENCE_S * experiments)
    bench.worker("-p", "1")
    for killed in (experiments // 2, experiments - 4):
        with start(bench, *words) as player:
            try:
                wait_until(lambda: done(bench) > killed, timeout_s=patience_s, saw=lambda: said(bench))  # noqa: B023
            finally:
                player.kill()
        bench.workers[-1].send_signal(signal.SIGKILL)
        bench.worker("-p", "1")
    with start(bench, *words) as player:
        try:
            assert player.wait(timeout=patience_s) == 0, said(bench)
        finally:
            player.kill()

    told = table(bench)
    assert [one["experiment"] for one in told] == [f"night-{number:03}" for number in range(experiments)]
    runs = promises.rows(bench.home, "runs")
    assert sorted(run["key"] for run in runs) == sorted(one["experiment"] for one in told), "each once"
    kinds = list(agent.PLANTED)
    for number, one in enumerate(told):
        times, left = divmod(number + 1, fault_every)
        state, cause = NAMED[kinds[(times - 1) % len(kinds)]] if left == 0 else ("completed", "")
        assert state in (None, one["state"]), one
        assert cause in one["cause"], one
        assert (one["val_bpb"] != "") == (cause == ""), one
    words_of_last = said(bench).splitlines()[-1].split()
    commands, longest = int(words_of_last[0]), int(words_of_last[-2])
    assert commands <= 3 * experiments + 3, "nobody polls"
    assert longest <= 1024
